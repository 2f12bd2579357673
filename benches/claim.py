"""What `run_due` costs with a million finished sagas in the table, and with none.

Alone: `python -m benches.claim` (`--finished 100000` for a quick look).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.support.postgres import PostgresServer

from . import stock
from .ours import create_tables, definition, engine_for, orchestrator_on

LIMIT = 100
TURNS, WARM_UP, IDLE_LOOKS = 15, 3, 5


@dataclass
class Side:
    """One of the two tables that are compared."""

    url: str
    idle: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    async def open(self, finished: int) -> None:
        self.engine = engine_for(self.url)
        await create_tables(self.engine)
        self.orchestrator = orchestrator_on(self.engine, {stock.NAME: definition(3)})
        self.connection = await asyncpg.connect(self.url, ssl=False)
        self.due = await stock.due_row(self.engine, self.orchestrator)
        self.emptied = not finished
        if finished:
            await stock.copies(
                self.connection, await stock.finished_row(self.engine, self.orchestrator), finished, "finished-"
            )
        await self.connection.execute("VACUUM (ANALYZE)")

    async def turn(self, number: int) -> None:
        """Time a `run_due` that finds nothing, and one that finds and completes a hundred sagas."""
        if self.emptied:
            await self.connection.execute("TRUNCATE bench_saga CASCADE")
        self.idle += [await self._timed(0) for _ in range(IDLE_LOOKS)]
        await stock.copies(self.connection, self.due, LIMIT, f"due-{number}-")
        self.busy.append(await self._timed(LIMIT))

    async def close(self) -> None:
        if left := await self._count("status <> 'COMPLETED'"):
            raise RuntimeError(f"{left} sagas are not completed")
        await self.connection.close()
        await self.orchestrator.aclose()
        await self.engine.dispose()

    async def _timed(self, expected: int) -> float:
        began = time.perf_counter()
        claimed = await self.orchestrator.run_due(limit=LIMIT)
        seconds = time.perf_counter() - began
        left = await self._count("deadline_at IS NOT NULL")  # by its index: reading it all would chill the next look
        if (claimed, left) != (expected, 0):
            raise RuntimeError(f"run_due claimed {claimed} of {expected} sagas, and {left} are still due")
        return seconds

    async def _count(self, condition: str) -> int:
        found: int = await self.connection.fetchval(f"SELECT count(*) FROM bench_saga WHERE {condition}")
        return found


async def measure(none: str, many: str, finished: int) -> dict[str, Any]:
    """Compare, turn by turn; the first turns warm up."""
    sides = (Side(none), Side(many))
    await sides[0].open(0)
    await sides[1].open(finished)
    for number in range(WARM_UP + TURNS):
        for side in sides if number % 2 else reversed(sides):
            await side.turn(number)
    figures: dict[str, Any] = {"finished": finished, "limit": LIMIT}
    for name, skipped in (("idle", WARM_UP * IDLE_LOOKS), ("busy", WARM_UP)):
        without, beside = (1000 * statistics.median(getattr(side, name)[skipped:]) for side in sides)
        figures[name] = {"none_ms": without, "many_ms": beside, "ratio": beside / without}
    for side in sides:
        await side.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--urls", nargs=2, help="two empty databases; without them a server is started")
    options = parser.parse_args()
    if options.urls:
        print(json.dumps(asyncio.run(measure(*options.urls, options.finished))))
        return
    with PostgresServer().start(fsync=True) as server:
        urls = [server.dsn(server.create_database()) for _ in range(2)]
        print(json.dumps(asyncio.run(measure(urls[0], urls[1], options.finished)), indent=2))


if __name__ == "__main__":
    main()
