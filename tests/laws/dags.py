"""Random sagas: any DAG of up to eight steps that `SagaBuilder` would build, with any policy, timeout and probe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from saga_orchestrator.definition.checks import check_way_back
from saga_orchestrator.definition.fans import Fan
from saga_orchestrator.definition.graph import Graph, Node, StepKind
from saga_orchestrator.definition.retry import ExponentialRetry, FixedRetry, NoRetry, RetryPolicy
from saga_orchestrator.errors import SagaDefinitionError

from .tape import Tape

POLICIES: tuple[RetryPolicy, ...] = (
    NoRetry(),
    FixedRetry(2, timedelta(seconds=10)),
    FixedRetry(3, timedelta(0)),
    ExponentialRetry(3, timedelta(seconds=5), jitter=0.5),
)
TIMEOUTS = (None, timedelta(seconds=30), None, timedelta(minutes=5))
READ_ONLY = {"kind": StepKind.READ_ONLY, "nothing_to_undo": True}
BEFORE_THE_PIVOT: tuple[dict[str, Any], ...] = (
    {"undoable": True},
    {"undoable": True, "undo_without_output": True},
    {"nothing_to_undo": True},
    READ_ONLY,
    {"undoable": False},
)


def random_graph(tape: Tape) -> Graph:
    """Return a saga that passes the builder's own checks."""
    nodes = _choice(tape) if tape.is_of_choices else []
    fans = _fan(tape, nodes) if tape.is_of_fans else {}
    for name in "abcde"[: 1 + tape.number(5)]:
        nodes.append(_node(tape, name, _some(tape, nodes), **tape.pick(BEFORE_THE_PIVOT)))
    certain = beside = [node for node in nodes if node.kind is StepKind.COMPENSATABLE or tape.happens(2)]
    if tape.happens(2):
        nodes.append(_node(tape, "pivot", certain, kind=StepKind.PIVOT))
        certain = nodes[-1:]
    for name in ("r1", "r2")[: tape.pick((0, 0, 1, 2))]:
        nodes.append(_node(tape, name, certain, kind=StepKind.RETRIABLE))
        certain = tape.pick((certain, nodes[-1:]))
    for name in ("q1", "q2", "q3")[: tape.pick((0, 3, 1, 2))]:
        nodes.append(_node(tape, name, tape.pick((nodes[-1:], beside, beside, _some(tape, nodes))), **READ_ONLY))
    window = timedelta(hours=1) if tape.is_of_fans or tape.is_of_waits else None
    deadline = timedelta(minutes=10) if tape.is_of_waits and tape.happens(2) else None
    settings = {"compensate_on_failure": not tape.happens(5), "max_recoveries": tape.pick((2, 0, 1, 3))}
    return _checked(nodes[:8], deadline=deadline, undo_window=window, fans=fans, **settings)


def _choice(tape: Tape) -> list[Node]:
    """Return a choice between two branches, one of up to two steps and one that may hold a choice of its own."""
    first = [_node(tape, "p", [], undoable=True)] if tape.happens(2) else []
    nodes = [*first, _node(tape, "choice", first, **READ_ONLY)]
    for name, label in (("x1", "x"), ("x2", "x"), ("y1", "y"))[tape.pick((0, 1)) :]:
        own = [node for node in nodes if dict(node.branches).get("choice") == label]
        before = own[-1:] or nodes[len(first) : len(first) + 1]
        facts = {"branches": (("choice", label),), **tape.pick(BEFORE_THE_PIVOT)}
        nodes.append(_node(tape, name, before, **facts))
    if tape.happens(2):
        last = nodes[-1]
        inner = replace(last, step_id="y2", after=(last.step_id,), branches=(*last.branches, (last.step_id, "z")))
        nodes[-1:] = [replace(last, probes=False, undoable=False, undo_without_output=False, **READ_ONLY), inner]
    return nodes


def _fan(tape: Tape, nodes: list[Node]) -> dict[str, Fan]:
    """Add a fan to the nodes: its first step, and its end; return it."""
    plain = {"probes": False, "transactional": False}
    first = replace(_node(tape, "fan", _some(tape, nodes), **READ_ONLY), **plain)
    item = _node(tape, "fan.*", [first], **tape.pick(BEFORE_THE_PIVOT[:3]))
    nodes += [first, replace(_node(tape, "fan.all", [first], **READ_ONLY), **plain)]
    return {"fan": Fan(item=item, end="fan.all", max_parallel=tape.pick((None, 1, 2)), tolerate=tape.pick((0, 1, 2)))}


def relisted(graph: Graph, tape: Tape) -> Graph:
    """Return the same saga with its steps listed in another order that respects every edge."""
    left, listed = dict(graph.nodes), list[Node]()
    while left:
        ready = [node for node in left.values() if not any(before in left for before in node.after)]
        chosen = tape.pick(ready[::-1])
        listed.append(left.pop(chosen.step_id))
    nodes = {node.step_id: node for node in listed}
    return replace(graph, nodes=nodes)


def _node(tape: Tape, step_id: str, after: Iterable[Node], **facts: Any) -> Node:
    return Node(
        step_id=step_id,
        after=tuple(node.step_id for node in after),
        probes=tape.happens(3),
        transactional=tape.is_of_waits and tape.happens(4),
        retry=tape.pick(POLICIES),
        timeout=tape.pick(TIMEOUTS),
        compensation_retry=tape.pick(POLICIES),
        compensation_timeout=tape.pick(TIMEOUTS),
        on_undo_failure=tape.pick(("continue", "continue", "stop")),
        **facts,
    )


def _some(tape: Tape, nodes: list[Node]) -> list[Node]:
    """Return the last node, or any others: a sequence is the dull case."""
    return nodes[-1:] if not tape.happens(2) else [node for node in nodes if tape.happens(2)]


def _checked(nodes: list[Node], **settings: Any) -> Graph:
    graph = Graph.of(*nodes, **settings)
    try:
        check_way_back(graph)
    except SagaDefinitionError:  # an effect that nobody can undo: the builder allows it where nothing can fail after it
        mended = [replace(node, undoable=node.undoable or _is_loose(node)) for node in nodes]
        graph = Graph.of(*mended, **settings)
        check_way_back(graph)
    return graph


def _is_loose(node: Node) -> bool:
    return node.kind is StepKind.COMPENSATABLE and not node.nothing_to_undo
