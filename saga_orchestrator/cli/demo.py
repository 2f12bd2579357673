"""`saga demo`: run orders through sagas, kill a worker half way, and audit the money and the stock."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

_WHAT = """\
Run orders from a CSV file through sagas: reserve the stock, charge the card, confirm, book a courier, notify the
customer. Cards decline, goods run out, charges are made and never answered, and half way a worker process is killed.
At the end the participants' tables are audited: exit code 0 if every order is either wholly delivered or wholly undone,
1 if not."""


def add_to(verbs: Verbs) -> None:
    """Describe the verb and its arguments."""
    parser = verbs.add_parser("demo", help="run the main job on real input, and audit it", description=_WHAT)
    parser.add_argument(
        "--database-url",
        metavar="URL",
        help="postgresql+asyncpg://user@host/name or sqlite+aiosqlite:///file.db; its tables demo_* are dropped first "
        "(default: a new SQLite file)",
    )
    parser.add_argument("--orders", type=_positive, default=200, metavar="N", help="how many orders (default: 200)")
    parser.add_argument("--workers", type=_positive, default=2, metavar="K", help="how many processes (default: 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return its exit code."""
    import asyncio

    from ..demo.database import read_url
    from ..demo.run import Settings, run_demo

    url = read_url(arguments.database_url) if arguments.database_url else _new_file()
    return asyncio.run(run_demo(Settings(url, arguments.orders, arguments.workers), sys.stdout))


def _new_file() -> URL:
    """Return the address of a database in a new folder, which is left for the curious."""
    import tempfile
    from pathlib import Path

    from sqlalchemy import URL

    return URL.create("sqlite+aiosqlite", database=str(Path(tempfile.mkdtemp(prefix="saga-demo-")) / "demo.db"))


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number
