"""How much memory a saga in flight takes: ten thousand of them at once, each waiting inside its step.

Two figures: what the process has grown by (RSS), and what Python's allocator counts (`--traced`: tracemalloc takes
memory itself). Both include the caller's task that awaits `start`.

Alone: `python -m benches.memory` (`--sagas 1000` for a quick look).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

from saga_orchestrator import BaseStep
from tests.support.postgres import PostgresServer

from .cases import order, reservation
from .ours import Order, Reservation, create_tables, definition, engine_for, orchestrator_on

PATIENCE = 60
"""Seconds after which sagas that have not all come into their step are given up."""


class Waits(BaseStep[Order, Reservation]):
    """A step that lasts until it is told to end; `entered` says that so many are inside."""

    def __init__(self) -> None:
        self.inside, self.wanted = 0, 0
        self.entered, self.end = asyncio.Event(), asyncio.Event()

    def expect(self, count: int) -> None:
        self.inside, self.wanted = 0, count
        self.entered, self.end = asyncio.Event(), asyncio.Event()

    async def execute(self, inp: Order) -> Reservation:
        self.inside += 1
        if self.inside == self.wanted:
            self.entered.set()
        await self.end.wait()
        return Reservation(**reservation(inp.order_id))


async def measure(url: str, sagas: int, traced: bool) -> dict[str, Any]:
    """Fill up, take the measure, let them all end; a first wave, a tenth of it, warms up."""
    engine = engine_for(url)
    await create_tables(engine)
    step = Waits()
    orchestrator = orchestrator_on(engine, {"waits": definition(1, step)})

    async def wave(first: int, count: int) -> int:
        step.expect(count)
        before = _used(traced)
        running = [
            asyncio.create_task(
                orchestrator.start(saga_name="waits", initial_data=order(n), aggregation_id=f"order-{n}")
            )
            for n in range(first, first + count)
        ]
        async with asyncio.timeout(PATIENCE):
            await step.entered.wait()
        grown = _used(traced) - before
        step.end.set()
        ended = await asyncio.gather(*running)
        snapshot = await orchestrator.get_snapshot(ended[-1])
        if snapshot.status.value != "COMPLETED":
            raise RuntimeError(f"a saga is {snapshot.status.value}")
        return grown

    if traced:
        tracemalloc.start()
    await wave(0, max(sagas // 10, 1))
    grown = await wave(sagas, sagas)
    await orchestrator.aclose()
    await engine.dispose()
    return {"sagas": sagas, "kib_per_saga": grown / sagas / 1024}


def _used(traced: bool) -> int:
    gc.collect()
    if traced:
        return tracemalloc.get_traced_memory()[0]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=10_000)
    parser.add_argument("--url", help="a database; without it a server is started")
    parser.add_argument("--traced", action="store_true", help="count with tracemalloc")
    options = parser.parse_args()
    if options.url:
        print(json.dumps(asyncio.run(measure(options.url, options.sagas, options.traced))))
        return
    with PostgresServer().start(fsync=True) as server:
        url = server.dsn(server.create_database())
        print(json.dumps(asyncio.run(measure(url, options.sagas, options.traced)), indent=2))


if __name__ == "__main__":
    main()
