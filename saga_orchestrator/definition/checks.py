"""Checks, when a saga is built, that it can be carried out and taken back.

Every message names the steps and says what to do: the one who reads it is about to change the definition.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from ..errors import SagaDefinitionError
from .fans import item_of
from .graph import Graph, Node, StepKind
from .retry import RetryPolicy
from .shape import StepShape

MAX_STEP_ID_LENGTH = 200
_NAMED_AT_MOST = 3
_LARGEST_NUMBER = 2**31 - 1
"""What an integer column holds; a larger number would be refused by the database in the middle of a claim."""


def check_step_id(step_id: Any, taken: Collection[str]) -> None:
    """Refuse an id that the tables, the idempotency keys (`saga/step/phase`) or another step could not live with."""
    if not isinstance(step_id, str) or not 0 < len(step_id) <= MAX_STEP_ID_LENGTH:
        raise SagaDefinitionError(f"step_id is {step_id!r:.60}; give it a str of 1 to {MAX_STEP_ID_LENGTH} characters.")
    if "/" in step_id or "\x00" in step_id or any("\ud800" <= letter <= "\udfff" for letter in step_id):
        raise SagaDefinitionError(f"step_id is {step_id!r}; it may hold no '/', no NUL and no lone surrogate.")
    if step_id in taken:
        raise SagaDefinitionError(f"Duplicate step id: {step_id}. Give one of the two steps another step_id=.")


def check_timeout(step_id: str, name: str, timeout: Any) -> None:
    """Refuse a limit that is no duration, or that no attempt could keep."""
    if timeout is not None and (not isinstance(timeout, timedelta) or timeout <= timedelta(0)):
        raise SagaDefinitionError(
            f"Step '{step_id}': {name} is {timeout!r}; give it a positive timedelta, such as timedelta(seconds=10)."
        )


def check_retry(step_id: str, name: str, policy: Any) -> None:
    """Refuse what is not a policy (most often the class instead of an instance), or waits for no time there is."""
    if policy is None:
        return
    if not isinstance(policy, RetryPolicy):
        raise SagaDefinitionError(
            f"Step '{step_id}': {name} is {policy!r}; give it a policy, such as FixedRetry(3, timedelta(seconds=1))."
        )
    delay: Any = policy.next_delay(1)
    if delay is not None and (not isinstance(delay, timedelta) or delay < timedelta(0)):
        raise SagaDefinitionError(f"Step '{step_id}': {name} waits for {delay!r}; give it a timedelta of 0 or more.")
    jitter = getattr(policy, "jitter", 0)
    if not 0 <= jitter <= 1:
        raise SagaDefinitionError(f"Step '{step_id}': {name} has the jitter {jitter!r}; it must be from 0 to 1.")


def read_kind(step_id: str, kind: Any) -> StepKind:
    """Return the kind as a `StepKind`; its name as a str will do."""
    try:
        return StepKind(kind)
    except ValueError:
        names = ", ".join(member.name for member in StepKind)
        raise SagaDefinitionError(f"Step '{step_id}': kind is {kind!r}; it must be one of {names}.") from None


def check_compensation(step_id: str, kind: StepKind, shape: StepShape, *, declared_none: bool) -> None:
    """Refuse a compensation that would never be called, and a declaration that contradicts the step."""
    if shape.undoable and declared_none:
        raise SagaDefinitionError(
            f"Step '{step_id}' has compensate, and is added with compensation=None, which says that there is nothing "
            "to undo. Drop one of the two."
        )
    if shape.undoable and kind is not StepKind.COMPENSATABLE:
        raise SagaDefinitionError(
            f"Step '{step_id}' is {kind.name} and has compensate, which would never be called. "
            "Make it COMPENSATABLE, or use a step class without compensate."
        )
    if declared_none and kind.is_final:
        raise SagaDefinitionError(
            f"Step '{step_id}' is {kind.name}, so it is never undone; compensation=None says something else "
            "(that it has no effect). Drop it, or make the step READ_ONLY."
        )


def check_part(name: str, part: Any, *, compensate_on_failure: bool) -> None:
    """Refuse what is no definition, and one that wants another end when it fails than the saga around it."""
    if not hasattr(part, "graph"):
        raise SagaDefinitionError(
            f"Saga '{name}': the definition is {part!r}; give it what SagaBuilder.build returned."
        )
    if part.commit == "manual":
        raise SagaDefinitionError(
            f"Saga '{name}' has commit='manual', and is to be a part of another; only the whole is committed. "
            "Say commit='manual' of the saga around it, or of none."
        )
    if part.graph.compensate_on_failure is not compensate_on_failure:
        raise SagaDefinitionError(
            f"Saga '{name}' has compensate_on_failure={part.graph.compensate_on_failure}, and the saga around it "
            f"{compensate_on_failure}; they fail together, so give both the same."
        )


def check_fan(name: str, max_parallel: Any, tolerate: Any) -> None:
    """Refuse bounds of a fan that mean nothing."""
    for what, value, least in (("max_parallel", max_parallel, 1), ("tolerate", tolerate, 0)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise SagaDefinitionError(f"Step '{name}': {what} is {value!r}; give it a number of at least {least}.")


def check_fans(graph: Graph) -> None:
    """Refuse a step whose id is that of an item of a fan."""
    for step_id in graph.nodes:
        place = item_of(step_id)
        if place is not None and place[0] in graph.fans:
            raise SagaDefinitionError(
                f"Step '{step_id}' has the id of an item of '{place[0]}'; give it another step_id=."
            )


def check_settings(compensate_on_failure: Any, version: Any, max_recoveries: Any) -> None:
    """Refuse settings of a builder that mean nothing."""
    if not isinstance(compensate_on_failure, bool):
        raise SagaDefinitionError(f"compensate_on_failure is {compensate_on_failure!r}; it must be True or False.")
    for name, value, least in (("version", version, 1), ("max_recoveries", max_recoveries, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST_NUMBER:
            raise SagaDefinitionError(
                f"{name} is {value!r}; it must be an int of at least {least} and at most {_LARGEST_NUMBER}."
            )


def check_way_back(graph: Graph) -> None:
    """Refuse an order of steps in which some failure could be answered neither by going on nor by going back.

    Raises:
        SagaDefinitionError: More than one pivot; a compensatable step that can run after a step which is never undone;
            a retriable step that can run before the pivot; an effect that nothing undoes though something may fail.
    """
    pivots = [step_id for step_id in graph.final if graph.nodes[step_id].kind is StepKind.PIVOT]
    if len(pivots) > 1:
        raise SagaDefinitionError(
            f"Steps {_listed(pivots)} are each a PIVOT; a saga has one point of no return. "
            "Make those that come after it RETRIABLE."
        )
    for step_id in _first_final(graph):
        certain = graph.ancestors(step_id)
        _check_before_final(graph, graph.nodes[step_id], certain)
        if pivots and step_id not in pivots and pivots[0] not in certain:
            raise SagaDefinitionError(
                f"Step '{step_id}' is RETRIABLE and can run before the PIVOT '{pivots[0]}' has succeeded, but is never "
                f"undone. Put it after '{pivots[0]}', or make it COMPENSATABLE."
            )
    for node in graph.nodes.values():
        _check_can_be_undone(graph, node)


def _first_final(graph: Graph) -> list[str]:
    """Return the steps never undone that do not directly follow another such step; the rest hold if these do."""
    final = frozenset(graph.final)
    return [step_id for step_id in graph.final if final.isdisjoint(graph.nodes[step_id].after)]


def _check_before_final(graph: Graph, final: Node, certain: frozenset[str]) -> None:
    for node in graph.nodes.values():
        if node.kind is StepKind.COMPENSATABLE and node.step_id not in certain and not node.excludes(final):
            raise SagaDefinitionError(
                f"Step '{node.step_id}' is COMPENSATABLE, but can run after '{final.step_id}' ({final.kind.name}) has "
                f"succeeded, when nothing is undone any more. Put it before '{final.step_id}', "
                "or make it RETRIABLE or READ_ONLY."
            )


def _check_can_be_undone(graph: Graph, node: Node) -> None:
    if node.kind is not StepKind.COMPENSATABLE or node.undoable or node.nothing_to_undo:
        return
    certain = {node.step_id, *graph.ancestors(node.step_id)}
    may_fail = [
        step_id
        for step_id, other in graph.nodes.items()
        if step_id not in certain and other.kind is not StepKind.RETRIABLE and not other.excludes(node)
    ]
    if may_fail:
        raise SagaDefinitionError(
            f"Step '{node.step_id}' has no compensate, and {_listed(may_fail)} may fail after it or beside it. "
            "Write compensate, or add it with compensation=None if there is nothing to undo."
        )


def _listed(step_ids: list[str]) -> str:
    shown = ", ".join(f"'{step_id}'" for step_id in step_ids[:_NAMED_AT_MOST])
    more = len(step_ids) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
