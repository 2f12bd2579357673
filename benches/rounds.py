"""The measurement: contenders take turns, round after round, so that a slow minute of the machine hits them all."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .audit import same_shape
from .cases import Case, Entrant
from .child import Child, ContenderError

LONG = 6.0
"""Seconds from which on a run is so long that two rounds of it will do."""


@dataclass
class Cell:
    """All the runs of one contender in one case."""

    entrant: Entrant
    case: Case
    samples: list[dict[str, float]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(sample["rate"] for sample in self.samples)

    def document(self) -> dict[str, Any]:
        facts = {name: statistics.median(sample[name] for sample in self.samples) for name in ("p50_ms", "p99_ms")}
        return {
            "contender": self.entrant.name,
            "database": self.entrant.database,
            "steps": self.case.steps,
            "in_flight": self.case.in_flight,
            "steps_per_second": self.rate,
            **facts,
            "samples": self.samples,
        }


@dataclass(frozen=True)
class Effort:
    """How long a run takes, and how many rounds there are."""

    seconds: float
    rounds: int


def measure(urls: dict[Entrant, str], cases: Sequence[Case], effort: Effort) -> list[Cell]:
    """Measure every case; the contenders' processes live as long as this takes."""
    cells: list[Cell] = []
    with ExitStack() as stack:
        children = [stack.enter_context(Child(entrant, url)) for entrant, url in urls.items()]
        named = {entrant.name: url for entrant, url in urls.items()}
        if {"ours", "floor-batch"} <= named.keys():
            same_shape(named["ours"], named["floor-batch"])
        for case in cases:
            cells += _one_case([child for child in children if child.entrant.enters(case)], case, effort)
    return cells


def _one_case(children: Iterable[Child], case: Case, effort: Effort) -> list[Cell]:
    cells = {child: (Cell(child.entrant, case), child.sagas_for(case, effort.seconds)) for child in children}
    for turn in range(effort.rounds):
        # Each round begins with another one: nobody always comes after the same neighbour.
        order = list(cells)
        order = order[turn % len(order) :] + order[: turn % len(order)]
        for child in order:
            cell, sagas = cells[child]
            if turn < 2 or cell.samples[0]["seconds"] < LONG:
                cell.samples.append(child.measure(case, sagas))
    for cell, _ in cells.values():
        low, high = (pick(sample["rate"] for sample in cell.samples) for pick in (min, max))
        print(
            f"  {case!s:>7}  {cell.entrant.name:<13} {cell.rate:>9,.0f} steps/s  ({low:,.0f} to {high:,.0f})",
            flush=True,
        )
    return [cell for cell, _ in cells.values()]


__all__ = ["Cell", "ContenderError", "Effort", "measure"]
