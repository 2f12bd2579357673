"""`python -m benches`: measure everything, or what is asked for, and write the results, the page and the plots."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.postgres import PostgresServer

from . import machine, report
from .audit import run
from .cases import CASES, ENTRANTS, Case, Entrant
from .child import ROOT
from .rounds import Cell, Effort, measure
from .targets import targets

PARTS = ("claim", "drain", "memory", "length", "vocabulary")
PATIENCE = 240
"""Seconds after which a part that does not end is given up."""
FULL, QUICK = Effort(seconds=0.8, rounds=7), Effort(seconds=0.4, rounds=1)
SIZES = {
    "claim": ("--finished", 1_000_000, 50_000),
    "drain": ("--sagas", 20_000, 2_000),
    "memory": ("--sagas", 10_000, 2_000),
    "length": ("--rounds", 5, 1),
    "vocabulary": ("--rounds", 20, 3),
}


def main() -> None:
    options = _options()
    effort = QUICK if options.quick else FULL
    with PostgresServer().start(fsync=True) as server, tempfile.TemporaryDirectory() as folder:
        results: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "effort": {"seconds": effort.seconds, "rounds": effort.rounds, "quick": options.quick},
            "machine": run(machine.describe(server.dsn())),
        }
        cells: list[Cell] = []
        for database in ("postgresql", "sqlite"):
            entrants = [e for e in ENTRANTS if e.database == database and e.name in options.only]
            urls = {e: _place(server, Path(folder), e) for e in entrants}
            cases = [case for case in CASES[database] if not options.cases or str(case) in options.cases]
            if options.quick and not options.cases:
                cases = [case for case in cases if case.steps == CASES[database][0].steps]
            if urls and cases:
                print(f"{database}:", flush=True)
                cells += measure(urls, cases, effort)
        results["cells"] = [cell.document() for cell in cells]
        for part in PARTS:
            if part in options.only:
                results[part] = _part(part, server, options.quick)
                print(f"{part}: {json.dumps(results[part])}", flush=True)
    _finish(results, complete=set(options.only) >= _everything() and not options.cases and not options.quick)


def _finish(results: dict[str, Any], complete: bool) -> None:
    for target in targets(results):
        print(f"{target.verdict:7}  {target.reached:8.2f} {target.unit} ({target.bound})  {target.name}")
    if not complete:
        print("Not everything was measured at full length: no results file, no page.")
        return
    path = report.RESULTS / f"{results['date']}-{machine.short(results['machine'])}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, path.name)
    print(f"Written: {path.relative_to(ROOT)}, {report.PAGE.relative_to(ROOT)}")


def _part(part: str, server: PostgresServer, quick: bool) -> dict[str, Any]:
    """Run one of the other measurements in a process of its own, on databases of its own."""
    option, full, small = SIZES[part]
    urls = [server.dsn(server.create_database()) for _ in range(2 if part == "claim" else 1)]
    command = [sys.executable, "-m", f"benches.{part}", option, str(small if quick else full)]
    if part == "memory":
        return {"sagas": small if quick else full, **_memory(command, urls[0])}
    place = ["--urls", *urls] if part == "claim" else ["--url", urls[0]]
    return _json([*command, *place])


def _memory(command: Sequence[str], url: str) -> dict[str, float]:
    grown, traced = _json([*command, "--url", url]), _json([*command, "--url", url, "--traced"])
    return {"rss_kib": grown["kib_per_saga"], "traced_kib": traced["kib_per_saga"]}


def _json(command: Sequence[str]) -> dict[str, Any]:
    ended = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=PATIENCE)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _place(server: PostgresServer, folder: Path, entrant: Entrant) -> str:
    if entrant.database == "sqlite":
        return str(folder / f"{entrant.name}.db")
    return server.dsn(server.create_database())


def _everything() -> set[str]:
    return {entrant.name for entrant in ENTRANTS} | set(PARTS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Measure, audit by SQL, and report.")
    parser.add_argument(
        "--quick", action="store_true", help="a minute instead of eight: short runs, 3-step sagas, one round"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(sorted(_everything()))}")
    known = sorted({str(case) for cases in CASES.values() for case in cases})
    parser.add_argument("--cases", nargs="+", metavar="STEPSxINFLIGHT", choices=known, help=f"of {', '.join(known)}")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - _everything():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(_everything()))}")
    if options.only is None:
        options.only = sorted(e.name for e in ENTRANTS) if options.cases else sorted(_everything())
    return options


__all__ = ["Case", "main"]

if __name__ == "__main__":
    main()
