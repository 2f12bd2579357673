"""One worker process draining a backlog of due sagas, and two.

Alone: `python -m benches.drain` (`--sagas 2000` for a quick look).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import asyncpg

from saga_orchestrator import SagaWorker
from tests.support.postgres import PostgresServer

from . import stock
from .child import ROOT
from .ours import create_tables, definition, engine_for, orchestrator_on

PATIENCE = 120


async def work(url: str) -> None:
    """Be a worker process: say that it is ready, wait for the word, then work until terminated."""
    engine = engine_for(url)
    orchestrator = orchestrator_on(engine, {stock.NAME: definition(3)})
    await orchestrator.run_due(limit=1)  # its connections are open before the clock runs
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await SagaWorker(orchestrator).run()
    await orchestrator.aclose()
    await engine.dispose()


async def measure(url: str, sagas: int, rounds: int) -> dict[str, Any]:
    """Let one worker and two workers take turns with equal backlogs."""
    engine = engine_for(url)
    await create_tables(engine)
    orchestrator = orchestrator_on(engine, {stock.NAME: definition(3)})
    due = await stock.due_row(engine, orchestrator)
    connection = await asyncpg.connect(url, ssl=False)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(rounds):
        for workers in (1, 2) if turn % 2 else (2, 1):
            await connection.execute("TRUNCATE bench_saga CASCADE")
            seconds[workers].append(await _drain(connection, url, due, (workers, sagas)))
    await connection.close()
    await orchestrator.aclose()
    await engine.dispose()
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    return {"sagas": sagas, "one_seconds": one, "two_seconds": two, "speed_up": one / two}


async def _drain(connection: asyncpg.Connection, url: str, due: str, load: tuple[int, int]) -> float:
    workers, sagas = load
    command = [sys.executable, "-m", "benches.drain", "--work", url]
    crew = [_started(command) for _ in range(workers)]
    try:
        for worker in crew:
            assert worker.stdout
            worker.stdout.readline()
        await stock.copies(connection, due, sagas, "due-")
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
        began = time.perf_counter()
        for worker in crew:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        await _until_drained(connection)
        seconds = time.perf_counter() - began
    finally:
        for worker in crew:
            worker.terminate()
        for worker in crew:
            worker.wait(20)
    done = await connection.fetchval("SELECT count(*) FROM bench_saga WHERE status = 'COMPLETED'")
    steps = await connection.fetchval("SELECT count(*) FROM bench_saga_history WHERE status = 'SUCCESS'")
    if (done, steps) != (sagas, 3 * sagas):
        raise RuntimeError(f"{done} sagas of {sagas} are completed, with {steps} steps")
    return seconds


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def _until_drained(connection: asyncpg.Connection) -> None:
    give_up = time.perf_counter() + PATIENCE
    while await connection.fetchval("SELECT EXISTS (SELECT FROM bench_saga WHERE deadline_at IS NOT NULL)"):
        if time.perf_counter() > give_up:
            raise RuntimeError("the backlog was not drained in time")
        await asyncio.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help="an empty database; without it a server is started")
    parser.add_argument("--work", metavar="URL", help="be a worker process")
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(options.work))
    elif options.url:
        print(json.dumps(asyncio.run(measure(options.url, options.sagas, options.rounds))))
    else:
        with PostgresServer().start(fsync=True) as server:
            url = server.dsn(server.create_database())
            print(json.dumps(asyncio.run(measure(url, options.sagas, options.rounds)), indent=2))


if __name__ == "__main__":
    main()
