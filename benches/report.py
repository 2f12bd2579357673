"""`docs/reference/benchmarks.md`, written from a results file: `python -m benches.report` writes it from the last."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from .cases import ENTRANTS, Case
from .targets import Results, rate, targets

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

<!-- Written by `make bench` from benches/results/{source}; do not edit. -->

Steps per second of durable work: each step's result is committed before the next step starts. The steps are trivial, so
only the engine is measured. The contenders take turns on one PostgreSQL with fsync on, each in a process of its own. A
figure is the median of the rounds, and counts only after an audit of the rows by SQL.
"""
COMPARED = """## What is compared

- The floors write the rows that a saga engine has to write, into tables of this library's shape with its indexes and
  constraints: the birth of the saga, and for each step one update of its head under its token and revision and one
  history row. They run nothing, retry nothing and recover nothing. Batched, they send all that has queued as one
  data-modifying statement.
- python-saga-orchestrator is set up as its README does it, with a pool of 8 connections, the fastest of 2, 4, 8, 16 and
  32. DBOS is measured as it comes, and tuned: with a bound of four threads for its database calls, the fastest of what
  we tried. Without a bound its threads fight for the interpreter. The targets were set on the peers as they come; the
  ratio to the tuned ones is stated beside them.
- This library is set up as its README does it, and nothing is tuned. uvloop is not used. The garbage collector
  runs; every contender has set aside what was imported (`gc.freeze`), as a service does that looks at its latency.
- The contenders take turns, round after round. A figure is the median of its rounds, a ratio the median of the rounds'
  ratios.
- The tables are vacuumed and analyzed between the runs, not emptied.
- A peer does not do what this library does, nor the other way round: DBOS also checks at each step whether the step has
  been done before, python-saga-orchestrator reads the saga and its history twice for each step."""


def write(results: Results, source: str) -> None:
    """Write the page and its plots."""
    from . import plots

    PAGE.parent.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(results, PAGE.parent)
    PAGE.write_text("\n".join(_page(results, source, drawn)) + "\n")


def _page(results: Results, source: str, drawn: list[str]) -> Iterator[str]:
    yield INTRODUCTION.format(source=source)
    yield from _machine(results)
    yield from _table(results, "postgresql", "PostgreSQL")
    yield from _table(results, "sqlite", "SQLite")
    for name in drawn:
        yield f"![Durable steps per second over the sagas in flight, on PostgreSQL]({name})\n"
    yield from _targets(results)
    yield COMPARED
    yield from _details(results)


def _machine(results: Results) -> Iterator[str]:
    machine = results["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version)
    server = machine["postgresql"]
    facts = (
        f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}; the database and the contenders share the cores. Python {machine['python']}, "
        f"PostgreSQL {server['server_version'].split()[0]} (fsync {server['fsync']}, synchronous_commit "
        f"{server['synchronous_commit']}), SQLite {machine['sqlite']}, {libraries}."
    )
    yield textwrap.fill(facts, 120, break_on_hyphens=False)
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
        verdict = f"**{target.verdict}**" if target.verdict == "not met" else target.verdict
        yield f"| {target.name} | {target.bound} | {target.reached:.2f} {target.unit} | {verdict} |"
    yield ""


def _details(results: Results) -> Iterator[str]:
    if claim := results.get("claim"):
        idle, busy = claim["idle"], claim["busy"]
        yield f"- `run_due` with nothing due: {idle['none_ms']:.2f} ms in an empty table, {idle['many_ms']:.2f} ms"
        yield f"  beside {claim['finished']:,} finished sagas. With {claim['limit']} due sagas of three steps, which it"
        yield f"  drives: {busy['none_ms']:.0f} ms and {busy['many_ms']:.0f} ms."
    if drain := results.get("drain"):
        yield f"- {drain['sagas']:,} due sagas of three steps: one worker process {drain['one_seconds']:.1f} s, two"
        yield f"  {drain['two_seconds']:.1f} s."
    if memory := results.get("memory"):
        yield f"- A saga in flight, with the task of its caller: {memory['rss_kib']:.1f} KiB of the process (RSS),"
        yield f"  {memory['traced_kib']:.1f} KiB by tracemalloc."
    if length := results.get("length"):
        steps = ", ".join(f"{value:.2f} ms in one of {steps}" for steps, value in length["ms_per_step"].items())
        yield f"- A step of a saga that runs alone: {steps} steps."


def newest() -> Path:
    """Return the last results file."""
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        sys.exit("There are no results yet: run `make bench`.")
    return files[-1]


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else newest()
    write(json.loads(chosen.read_text()), chosen.name)
