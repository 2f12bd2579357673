"""`docs/reference/benchmarks.md`, written from a results file. `python -m benches.report` writes it again from the last."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from .cases import ENTRANTS, Case
from .targets import Results, rate, targets

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "benchmarks.md"


def write(results: Results, source: str) -> None:
    """Write the page and its plots."""
    from . import plots

    PAGE.parent.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(results, PAGE.parent)
    PAGE.write_text("\n".join(_page(results, source, drawn)) + "\n")


def _page(results: Results, source: str, drawn: list[str]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield f"<!-- Written by `make bench` from benches/results/{source}; do not edit. -->"
    yield ""
    yield "Steps per second of durable work: each step's result is committed before the next step starts. Trivial steps, so"
    yield "that only the engine is measured. The contenders take turns on one PostgreSQL with fsync on, each in a process of"
    yield "its own; a figure is the median of the rounds, and counts only after an audit of the rows by SQL."
    yield ""
    yield from _machine(results)
    yield from _table(results, "postgresql", "PostgreSQL")
    yield from _table(results, "sqlite", "SQLite")
    for name in drawn:
        yield f"![{name.removesuffix('.svg').replace('-', ' ')}]({name})"
        yield ""
    yield from _targets(results)
    yield from _notes(results)


def _machine(results: Results) -> Iterator[str]:
    machine = results["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version)
    settings = machine["postgresql"]
    yield f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB,"
    yield f"{machine['system']}; the database and the contenders share the cores. Python {machine['python']}, PostgreSQL"
    yield f"{settings['server_version']} (fsync {settings['fsync']}, synchronous_commit {settings['synchronous_commit']}),"
    yield f"SQLite {machine['sqlite']}, {libraries}."
    yield ""


def _table(results: Results, database: str, title: str) -> Iterator[str]:
    cells = [cell for cell in results["cells"] if cell["database"] == database]
    cases = sorted({Case(cell["steps"], cell["in_flight"]) for cell in cells})
    if not cells:
        return
    yield f"## {title}, steps per second"
    yield ""
    yield "| | " + " | ".join(f"{case.steps} steps, {case.in_flight} in flight" for case in cases) + " |"
    yield "|---|" + "---:|" * len(cases)
    measured = {cell["contender"] for cell in cells}
    for entrant in ENTRANTS:
        if entrant.name in measured:
            rates = [rate(results, entrant.name, case.steps, case.in_flight) for case in cases]
            yield f"| {entrant.label} | " + " | ".join("" if r is None else f"{r:,.0f}" for r in rates) + " |"
    yield ""


def _targets(results: Results) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield "| | target | reached | |"
    yield "|---|---:|---:|---|"
    for target in targets(results):
        bound = "at most" if target.at_most else "at least"
        verdict = "met" if target.met else "**not met**"
        yield f"| {target.name} | {bound} {target.wanted:g} {target.unit} | {target.reached:.2f} {target.unit} | {verdict} |"
    yield ""


def _notes(results: Results) -> Iterator[str]:
    yield "## What is compared"
    yield ""
    yield "- The floors write the rows that a saga engine has to write, into tables of this library's shape with its indexes and"
    yield "  constraints: the birth of the saga, and for each step one update of its head under its token and revision and one"
    yield "  history row. They run nothing, retry nothing and recover nothing. Batched, they send all that has queued as one"
    yield "  data-modifying statement."
    yield "- python-saga-orchestrator is set up as its README does it, with a pool of 8 connections. DBOS is measured as it comes,"
    yield "  and with a bound of four threads for its database calls, which was the fastest of what we tried: without the bound"
    yield "  its threads fight for the interpreter. The faster peer is the faster of all of these."
    yield "- This library is set up as its README does it. Nothing is tuned; uvloop is not used; the garbage collector runs."
    yield "- Tables are vacuumed and analyzed between the runs, not emptied."
    if claim := results.get("claim"):
        idle, busy = claim["idle"], claim["busy"]
        yield f"- `run_due`, nothing due: {idle['none_ms']:.2f} ms in an empty table, {idle['many_ms']:.2f} ms beside"
        yield f"  {claim['finished']:,} finished sagas; {claim['limit']} due sagas of three steps: {busy['none_ms']:.0f} ms and"
        yield f"  {busy['many_ms']:.0f} ms."
    if drain := results.get("drain"):
        yield f"- {drain['sagas']:,} due sagas of three steps: one worker process {drain['one_seconds']:.1f} s, two"
        yield f"  {drain['two_seconds']:.1f} s."
    if memory := results.get("memory"):
        yield f"- A saga in flight: {memory['rss_kib']:.1f} KiB of the process (RSS), {memory['traced_kib']:.1f} KiB by tracemalloc,"
        yield "  with the task of its caller."
    if length := results.get("length"):
        steps = ", ".join(f"{value:.2f} ms in one of {steps}" for steps, value in length["ms_per_step"].items())
        yield f"- A step of a saga alone: {steps} steps."


def newest() -> Path:
    """Return the last results file."""
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        sys.exit("There are no results yet: run `make bench`.")
    return files[-1]


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else newest()
    write(json.loads(chosen.read_text()), chosen.name)
