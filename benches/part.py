"""Runs one of the further measurements as a command: on a database that is given, or on a server of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.postgres import PostgresServer


def main(measure: Callable[[str, int], Awaitable[dict[str, Any]]], rounds: int, description: str | None) -> None:
    """Measure, and print what was found as JSON: on one line for another program, indented for a person."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--url", help="an empty database; without it a server is started")
    options = parser.parse_args()

    async def run(url: str) -> dict[str, Any]:
        return await measure(url, options.rounds)

    if options.url:
        print(json.dumps(asyncio.run(run(options.url))))
        return
    with PostgresServer().start(fsync=True) as server:
        print(json.dumps(asyncio.run(run(server.dsn(server.create_database()))), indent=2))
