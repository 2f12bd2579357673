"""The targets, as the project has set them to itself, each beside what was reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .cases import PEERS, TUNED

Results = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One aim: `reached` has to be at least (or at most) `wanted`; without a `wanted` it is stated, and no aim."""

    name: str
    wanted: float | None
    reached: float
    unit: str = "times"
    at_most: bool = False

    @property
    def verdict(self) -> str:
        if self.wanted is None:
            return "stated"
        return "met" if self._is_met(self.wanted) else "not met"

    @property
    def bound(self) -> str:
        if self.wanted is None:
            return "none"
        return f"{'at most' if self.at_most else 'at least'} {self.wanted:g} {self.unit}"

    def _is_met(self, wanted: float) -> bool:
        return self.reached <= wanted if self.at_most else self.reached >= wanted


def targets(results: Results) -> list[Target]:
    """Return every target whose figures this run has measured."""
    return [*_speed(results), *_claiming(results), *_size(results), *_vocabulary(results)]


def rates(results: Results, contender: str, steps: int, in_flight: int) -> list[float]:
    """Return the steps per second of each round of a cell; none if it was not measured."""
    for cell in results["cells"]:
        if (cell["contender"], cell["steps"], cell["in_flight"]) == (contender, steps, in_flight):
            return [float(sample["rate"]) for sample in cell["samples"]]
    return []


def rate(results: Results, contender: str, steps: int, in_flight: int) -> float | None:
    """Return the median steps per second of a cell, or None if it was not measured."""
    found = rates(results, contender, steps, in_flight)
    return statistics.median(found) if found else None


def times(ours: list[float], theirs: list[float]) -> float:
    """Return how many times as fast we were: the median over the rounds, in which the two came soon after each other.

    The machine may be twice as fast in one minute as in the next; what is compared is from the same one.
    """
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=False))


def _speed(results: Results) -> Iterator[Target]:
    for steps in (3, 10):
        at = f"{steps} steps per saga"
        for in_flight, aim, floor, least in ((256, 50, "floor-batch", 0.55), (1, 4.5, "floor-commit", 0.6)):
            ours = rates(results, "ours", steps, in_flight)
            below = rates(results, floor, steps, in_flight)
            for condition, names in PEERS.items():
                peers = [r for name in names if (r := rates(results, name, steps, in_flight))]
                if ours and len(peers) == len(names):
                    title = f"{in_flight} in flight, {at}: to the faster peer, {condition}"
                    yield Target(title, None if condition == TUNED else aim, min(times(ours, peer) for peer in peers))
            if ours and below:
                named = "batched" if floor == "floor-batch" else "one-commit"
                yield Target(f"{in_flight} in flight, {at}: of the {named} floor", least, times(ours, below))
        ours, below = rates(results, "ours-sqlite", steps, 256), rates(results, "floor-sqlite", steps, 256)
        if ours and below:
            yield Target(f"SQLite, 256 in flight, {at}: of the batched floor", 0.4, times(ours, below))


def _claiming(results: Results) -> Iterator[Target]:
    if claim := results.get("claim"):
        beside = f"with {claim['finished']:,} finished sagas in the table, to its cost with none"
        for name, what in (("idle", "that finds nothing"), ("busy", f"that drives {claim['limit']} due sagas")):
            yield Target(f"`run_due` {what}, {beside}", 1.3, claim[name]["ratio"], at_most=True)
    if drain := results.get("drain"):
        yield Target(f"Two workers, {drain['sagas']:,} due sagas: faster than one", 1.0, drain["speed_up"])


def _size(results: Results) -> Iterator[Target]:
    if memory := results.get("memory"):
        largest = max(memory["rss_kib"], memory["traced_kib"])
        yield Target(f"Memory per saga, {memory['sagas']:,} in flight", 20, largest, "KiB", at_most=True)
    if length := results.get("length"):
        # Linear would be 1; the noise of a shared machine is what the rest is for.
        yield Target("A step in a saga of 500 steps, to one in a saga of 125", 1.3, length["ratio"], at_most=True)


def _vocabulary(results: Results) -> Iterator[Target]:
    if found := results.get("vocabulary"):
        name = "A transactional step, to the same transaction written by hand"
        yield Target(name, 1.5, found["transactional_ms"] / found["by_hand_ms"], at_most=True)
        name = "A saga whose event came first, with 100,000 others buffered, to its cost with none"
        yield Target(name, None, found["early_event_beside_100000_ms"] / found["early_event_ms"])
        yield Target("A saga of three steps side by side, to one of one step", None, _branches(found))
        yield Target("From `signal` to the step that waits, median", None, found["signal_ms"]["p50"], "ms")
        yield Target("From `signal` to the step that waits, 99 of 100", None, found["signal_ms"]["p99"], "ms")
        yield Target("A saga of ten sagas inside each other", None, found["levels_ms"], "ms")
        yield Target("A saga of a step for each of 100 items", None, found["hundred_items_ms"], "ms")
        yield Target("A saga that has a child of one step, and waits for it", None, found["child_ms"], "ms")


def _branches(found: Results) -> float:
    return float(found["three_branches_ms"] / found["one_step_ms"])
