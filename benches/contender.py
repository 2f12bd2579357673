"""A contender's own process: it opens its database, and then runs the loads that it is told, one at a time.

The parent speaks JSON lines: a load comes in on the standard input, its time goes out on the standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Contender(Protocol):
    """Somebody who can run sagas durably."""

    async def open(self, url: str) -> None:
        """Create the tables and warm nothing up. `url`: asyncpg's address of a database, or a path for SQLite."""

    async def saga(self, number: int, steps: int) -> None:
        """Run one saga of trivial steps from its birth to its end; when this returns, its end is durable."""

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Load:
    """How many sagas, of how many steps, how many of them at once."""

    sagas: int
    steps: int
    in_flight: int
    first: int = 0
    """The number of the first saga: every saga of a database has its own."""


async def drive(contender: Contender, load: Load) -> dict[str, float]:
    """Run a load and return its time, and what one saga took at the median and at the 99th percentile."""
    numbers = iter(range(load.first, load.first + load.sagas))
    latencies: list[float] = []

    async def lane() -> None:
        for number in numbers:
            began = time.perf_counter()
            await contender.saga(number, load.steps)
            latencies.append(time.perf_counter() - began)

    gc.collect()  # the garbage of the load before is not this one's
    gc.freeze()  # what was imported is no garbage, either; the collector itself stays as it is
    began, busy = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as lanes:
        for _ in range(min(load.in_flight, load.sagas)):
            lanes.create_task(lane())
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - busy,
        "p50_ms": 1000 * statistics.median(latencies),
        "p99_ms": 1000 * sorted(latencies)[int(0.99 * (len(latencies) - 1))],
    }


def main(make: Callable[[], Contender], postgresql: bool = True) -> None:
    """Serve a parent (`--serve URL`), or run one load alone on a database of its own, for profiling."""
    parser = argparse.ArgumentParser(description="Run one contender alone.")
    parser.add_argument(
        "--serve", metavar="URL", help="take loads from the standard input (what `python -m benches` uses)"
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--sagas", type=int, default=3000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument(
        "--database", choices=("postgresql", "sqlite"), default="postgresql" if postgresql else "sqlite"
    )
    parser.add_argument("--profile", metavar="FILE", help="write a cProfile of the load (read it with pstats)")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve(make(), options.serve))
    else:
        from . import alone

        load = Load(options.sagas, options.steps, options.in_flight)
        alone.run(make, load, options)


async def _serve(contender: Contender, url: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    await contender.open(url)
    try:
        print(json.dumps({"ready": True}), file=answers, flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            figures = await drive(contender, Load(**json.loads(line)))
            print(json.dumps(figures), file=answers, flush=True)
    finally:
        await contender.close()
