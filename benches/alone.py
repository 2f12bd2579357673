"""One contender alone, in the process that was started, on a database of its own: to look into it with a profiler."""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.postgres import PostgresServer

from .audit import audit, count, prepare
from .cases import ENTRANTS
from .contender import Contender, Load, drive


def run(make: Callable[[], Contender], load: Load, options: argparse.Namespace) -> None:
    """Run the load `--repeat` times after a warm-up, audit each run, and print its figures."""
    if options.database == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            _repeat(make, load, options, str(Path(folder) / "bench.db"))
    else:
        with PostgresServer().start(fsync=True) as server:
            _repeat(make, load, options, server.dsn(server.create_database()))


def _repeat(make: Callable[[], Contender], load: Load, options: argparse.Namespace, url: str) -> None:
    entrant = next(e for e in ENTRANTS if e.module == _module() and e.database == options.database)
    with asyncio.Runner() as runner:
        contender = make()
        runner.run(contender.open(url))
        # A tenth of the load to warm up; it leaves rows behind, as every table in use has them.
        runner.run(drive(contender, Load(max(load.sagas // 10, 1), load.steps, load.in_flight)))
        for turn in range(1, options.repeat + 1):
            # The audit brings its own event loop, so it must not run inside this one.
            prepare(entrant, url)
            before = count(entrant, url)
            turn_load = replace(load, first=turn * load.sagas)
            figures = _timed(runner, contender, turn_load, options.profile)
            audit(entrant, url, before, load)
            rate = load.sagas * load.steps / figures["seconds"]
            print(f"{entrant.name} {load.steps}x{load.in_flight}: {rate:,.0f} steps/s; {load.sagas} sagas in", end=" ")
            print(", ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)
        runner.run(contender.close())


def _timed(runner: asyncio.Runner, contender: Contender, load: Load, profile: str | None) -> dict[str, float]:
    if not profile:
        return runner.run(drive(contender, load))
    with cProfile.Profile() as profiler:
        figures = runner.run(drive(contender, load))
    profiler.dump_stats(profile)
    return figures


def _module() -> str:
    """Return the name of the module that `python -m` runs."""
    import __main__

    return str(__main__.__spec__.name)
