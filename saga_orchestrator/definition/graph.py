"""The graph of a saga's steps, as the kernel sees it: plain values, no callables but retry policies.

A `Graph` is a DAG of `Node`s in the order they were added. It answers questions of order (what comes after, what
before) and of reversibility (what has an effect, what can be undone); it never answers questions of *state*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Literal

from ..errors import SagaDefinitionError
from .fans import Fan, unfolded
from .retry import NoRetry, RetryPolicy

_REMEMBERED = 256
"""How many unfoldings of a graph are kept: sagas of one definition tend to have lists of a few lengths."""


class StepKind(StrEnum):
    """What a step's effect means for the way back (saga theory: Garcia-Molina & Salem 1987; Richardson 2018)."""

    COMPENSATABLE = "COMPENSATABLE"
    """Its effect can be undone; the default."""
    READ_ONLY = "READ_ONLY"
    """It has no effect: there is nothing to undo."""
    PIVOT = "PIVOT"
    """The point of no return: once it has acted, the saga only goes forward."""
    RETRIABLE = "RETRIABLE"
    """Comes after the pivot and is tried until it succeeds; it is never undone."""

    @property
    def is_final(self) -> bool:
        """Whether the effect of such a step, once made, forbids any way back."""
        return self in (StepKind.PIVOT, StepKind.RETRIABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One step, reduced to what decides its order, its retries and its undoing.

    Attributes:
        after: The steps that must have succeeded (or been skipped) before this one may start.
        undoable: It has a compensation.
        undo_without_output: Its compensation can run when the output was never learnt.
        nothing_to_undo: It has no effect, or its author declared that there is nothing to undo.
        probes: It can be asked whether an attempt in doubt has acted.
        transactional: What it does is committed with the record of it, so an attempt that was lost has not acted.
        branches: The choices on which it depends whether it runs, each with the answer by which it does.
        fan: The first step of the fan of which it is the step for one item.
        name: What the history calls it for people to read; nothing is decided by it.
    """

    step_id: str
    after: tuple[str, ...] = ()
    kind: StepKind = StepKind.COMPENSATABLE
    undoable: bool = False
    undo_without_output: bool = False
    nothing_to_undo: bool = False
    probes: bool = False
    transactional: bool = False
    retry: RetryPolicy = field(default_factory=NoRetry)
    timeout: timedelta | None = None
    compensation_retry: RetryPolicy = field(default_factory=NoRetry)
    compensation_timeout: timedelta | None = None
    on_undo_failure: Literal["continue", "stop"] = "continue"
    branches: tuple[tuple[str, str], ...] = ()
    fan: str | None = None
    name: str = ""

    def excludes(self, other: Node) -> bool:
        """Return whether a saga never runs both this step and the other."""
        answers = dict(other.branches)
        return any(answers.get(choice, label) != label for choice, label in self.branches)


@dataclass(frozen=True)
class Graph:
    """A frozen DAG of steps, in the order in which they were added (which is also a topological order).

    Args:
        compensate_on_failure: False leaves the effects of a failed saga standing, for a person to decide.
        max_recoveries: How many crashes in a row, without any progress, a saga may cause before it is quarantined.
        deadline: How long after its beginning a saga that is not past its pivot is taken back.
        undo_window: How long after its end a saga that has completed can still be undone; None for not at all.
        fans: Those by their first step.
        counts: For each fan that is unfolded, how many items it has.
    """

    nodes: Mapping[str, Node]
    compensate_on_failure: bool = True
    max_recoveries: int = 5
    deadline: timedelta | None = None
    undo_window: timedelta | None = None
    fans: Mapping[str, Fan] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *nodes: Node,
        compensate_on_failure: bool = True,
        max_recoveries: int = 5,
        deadline: timedelta | None = None,
        undo_window: timedelta | None = None,
        fans: Mapping[str, Fan] = MappingProxyType({}),
    ) -> Graph:
        """Check the nodes, put them in topological order (ties: as added), and freeze them.

        Raises:
            SagaDefinitionError: Two nodes share an id, an edge leads nowhere, or the edges form a cycle.
        """
        by_id: dict[str, Node] = {}
        for node in nodes:
            if node.step_id in by_id:
                raise SagaDefinitionError(f"Duplicate step id: {node.step_id}")
            by_id[node.step_id] = node
        ordered = {step_id: by_id[step_id] for step_id in _topological(by_id)}
        return cls(MappingProxyType(ordered), compensate_on_failure, max_recoveries, deadline, undo_window, fans)

    def unfolded(self, counts: Mapping[str, int]) -> Graph:
        """Return the graph in which each fan of `counts` has so many items; what is unfolded already stays so."""
        if not counts:
            return self
        key = tuple((first, n) for first, n in counts.items() if first in self.fans and first not in self.counts)
        if not key:
            return self
        if key not in self._unfoldings:
            if len(self._unfoldings) >= _REMEMBERED:
                self._unfoldings.clear()
            new = dict(key)
            nodes = MappingProxyType(unfolded(self.nodes, self.fans, new))
            self._unfoldings[key] = replace(self, nodes=nodes, counts={**self.counts, **new})
        return self._unfoldings[key]

    @cached_property
    def _unfoldings(self) -> dict[tuple[tuple[str, int], ...], Graph]:
        return {}

    @cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each step, the steps that wait for it."""
        found: dict[str, list[str]] = {step_id: [] for step_id in self.nodes}
        for node in self.nodes.values():
            for before in node.after:
                found[before].append(node.step_id)
        return {step_id: tuple(ids) for step_id, ids in found.items()}

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The steps that wait for nothing."""
        return tuple(step_id for step_id, node in self.nodes.items() if not node.after)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The steps in the order of the definition."""
        return tuple(self.nodes)

    @cached_property
    def final(self) -> tuple[str, ...]:
        """The steps whose effect forbids any way back."""
        return tuple(step_id for step_id, node in self.nodes.items() if node.kind.is_final)

    @cached_property
    def choices(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """For each choice, the steps that belong to one of its branches, each with the answer by which it runs."""
        found: dict[str, list[tuple[str, str]]] = {}
        for node in self.nodes.values():
            for choice, label in node.branches:
                found.setdefault(choice, []).append((node.step_id, label))
        return {choice: tuple(steps) for choice, steps in found.items()}

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Each step's place in the order of the definition, from 0."""
        return {step_id: index for index, step_id in enumerate(self.nodes)}

    def part(self, step_id: str) -> frozenset[str]:
        """Return the step and whatever comes after it."""
        if step_id not in self._parts:
            found = [step_id]
            for each in found:  # grows
                found.extend(after for after in self.dependents[each] if after not in found)
            self._parts[step_id] = frozenset(found)
        return self._parts[step_id]

    @cached_property
    def _parts(self) -> dict[str, frozenset[str]]:
        return {}

    def ancestors(self, step_id: str) -> frozenset[str]:
        """Return every step that is certain to be over before this one starts."""
        found: set[str] = set()
        pending = list(self.nodes[step_id].after)
        while pending:
            before = pending.pop()
            if before not in found:
                found.add(before)
                pending.extend(self.nodes[before].after)
        return frozenset(found)


def _topological(nodes: Mapping[str, Node]) -> list[str]:
    """Return the ids in an order that respects every edge and, where edges are silent, the order of adding."""
    for node in nodes.values():
        for before in node.after:
            if before not in nodes:
                raise SagaDefinitionError(f"Step '{node.step_id}' comes after '{before}', which is not in this saga.")
    sorter = TopologicalSorter({step_id: node.after for step_id, node in nodes.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise SagaDefinitionError(f"The steps form a cycle: {' -> '.join(error.args[1])}") from None
    added = {step_id: index for index, step_id in enumerate(nodes)}
    order: list[str] = []
    ready = sorted(sorter.get_ready(), key=added.__getitem__)
    while ready:
        step_id = ready.pop(0)
        order.append(step_id)
        sorter.done(step_id)
        ready = sorted([*ready, *sorter.get_ready()], key=added.__getitem__)
    return order
