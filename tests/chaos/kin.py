"""What must be true of a saga and its child, once everybody has finished.

What the child says of its own effects is held against the ledger as any saga's is; here the two rows are held against
each other. An operator who tries a child again after its parent has ended has that child on his own account.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from saga_orchestrator import SagaSnapshot, SagaStatus
from saga_orchestrator.definition.child import ENDED
from tests.chaos.case import Case
from tests.chaos.graphs import CHILD, PARENT

_TERMINAL = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED)


def check_kin(cases: Mapping[str, Case]) -> Iterator[str]:
    """Say where parents and children do not agree."""
    children = _children(cases)
    for case in cases.values():
        if (case.saga.saga_name == CHILD) != (case.parent is not None):
            yield f"{case.saga.id}, a {case.saga.saga_name}, has the parent {case.parent}"
        if case.parent is not None and str(case.parent) not in cases:
            yield f"{case.saga.id} is the child of {case.parent}, which is not there"
        if case.saga.saga_name == PARENT:
            yield from (f"{case.saga.id} {case.saga.status.value}: {what}" for what in _check(case, children))


def waits_for_a_person(case: Case, cases: Mapping[str, Case]) -> bool:
    """Return whether a saga is active because its child is STUCK."""
    child = _children(cases).get(str(case.saga.id))
    return child is not None and child.saga.status is SagaStatus.STUCK


def waits_for_stuck(saga: SagaSnapshot, stuck: Collection[SagaSnapshot]) -> bool:
    """Return whether a saga waits for a child that is among those which are STUCK."""
    numbers = {child.aggregation_id for child in stuck}
    return saga.awaiting == f"event:{ENDED}" and f"{saga.aggregation_id}/{CHILD}" in numbers


def _children(cases: Mapping[str, Case]) -> dict[str, Case]:
    return {str(case.parent): case for case in cases.values() if case.parent is not None}


def _check(parent: Case, children: Mapping[str, Case]) -> Iterator[str]:
    child, status = children.get(str(parent.saga.id)), parent.steps.get(CHILD)
    name = "Pending" if status is None else type(status).__name__
    if child is None:
        if name in ("Succeeded", "Waiting", "Undone", "UndoWaiting"):
            yield f"{CHILD} is {name}, and there is no child"
        return
    stands = sorted(child.standing)
    shown = f"child {child.saga.id} is {child.saga.status.value}, and {stands} stand"
    if name in ("Pending", "Omitted", "Skipped", "Missed"):
        yield f"{CHILD} is {name}, and {shown}"
    if name == "Succeeded" and (child.saga.status is not SagaStatus.COMPLETED or child.standing != child.effects):
        yield f"{CHILD} is Succeeded, and {shown}"
    if name in ("Waiting", "UndoWaiting") and child.saga.status in _TERMINAL:
        yield f"{CHILD} is {name}, and nobody has told it that {shown}"
    if stands and not child.revived() and CHILD not in parent.saga.residue and name in ("Failed", "Undone", "Passed"):
        yield f"{CHILD} is {name} and no residue, and {shown}"
    yield from _outputs(parent, child)


def _outputs(parent: Case, child: Case) -> Iterator[str]:
    """A parent was told what its child has done last."""
    for row in parent.past:
        if (row.step_id, row.phase, row.status) == (CHILD, "EXECUTE", "SUCCESS"):
            effect = child.slots["keys"].effect if "keys" in child.slots else None
            if f'"{effect}"' not in (row.output or ""):
                yield f"{CHILD} recorded {row.output}, the child's effect is {effect}"
