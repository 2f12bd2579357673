"""What must be true when everything has come to rest: the sagas' story against the participants' books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from saga_orchestrator import SagaStatus, StepKind
from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.codec import decode
from saga_orchestrator.kernel.projection import residue
from saga_orchestrator.kernel.state import Course, State
from saga_orchestrator.kernel.step_status import Missed, Omitted, Succeeded
from saga_orchestrator.kernel.undo_status import Waived
from saga_orchestrator.storage.rows import Head

from .database import CHILD

if TYPE_CHECKING:
    from .ledger import Place
    from .world import World


def faults_of(world: World) -> Iterator[str]:
    """Yield everything that is wrong with how the run has ended."""
    for saga_id, wish in world.people.promised.items():
        if saga_id not in world.database.rows:
            yield f"the start of {wish.aggregate} returned, and its saga is lost"
    if not world.database.rows and world.plan.crash_at is None:
        yield "no saga was ever born, so nothing is proved"
    yield from _doubled(world)
    for head in world.database.rows.values():
        for what in _wrong(world, head):
            yield f"{world.label(head.id)} is {head.status.value}: {what}"


def _doubled(world: World) -> Iterator[str]:
    keys = [(head.saga_name, head.idempotency_key) for head in world.database.rows.values() if head.idempotency_key]
    for key in sorted(set(keys)):
        if keys.count(key) > 1:
            yield f"{keys.count(key)} sagas have the idempotency key {key}"


def _wrong(world: World, head: Head) -> Iterator[str]:
    if not (head.status.is_terminal or world.is_left_to_people(head)):
        yield f"neither over nor stuck (owner {head.lease_owner is not None}, due {head.deadline_at})"
        return
    yield from _misreported(world, head)
    graph, state = world.graph(head), decode(head.state, key=str(head.id))
    for step_id in graph.order:
        place = head.id, step_id
        if head.status is SagaStatus.COMPLETED and not isinstance(state.of(step_id), Omitted | Missed):
            yield from _incomplete(world, graph, place)
        elif world.ledger.effect(place).stands and not _is_accounted_for(world, graph, state, place):
            yield f"the effect of {step_id} ({type(state.of(step_id)).__name__}) stands, and nothing says so"


def _incomplete(world: World, graph: Graph, place: Place) -> Iterator[str]:
    node = graph.nodes[place[1]]
    if node.name == CHILD:
        yield from _childless(world, place)
    elif node.kind is not StepKind.READ_ONLY and not _was_skipped(world, place):
        effect = world.ledger.effect(place)
        if not effect.stands:
            yield f"{place[1]} was {'undone' if effect.undone else 'never done'}"


def _childless(world: World, place: Place) -> Iterator[str]:
    """Find fault with a child whose parent is COMPLETED, and which is not."""
    found = [head.status for head in _children(world, place[0]) if head.aggregation_id.endswith(f"/{place[1]}")]
    if found != [SagaStatus.COMPLETED] and not _was_skipped(world, place):
        yield f"its children at {place[1]} are {found}"


def _misreported(world: World, head: Head) -> Iterator[str]:
    """Find fault with a parent that says that all is undone, where something of a child stands."""
    if head.status is not SagaStatus.COMPENSATED:
        return
    for child in _children(world, head.id):
        state, step_id = decode(child.state, key=str(child.id)), child.aggregation_id.rpartition("/")[2]
        waived = _is_waived(world, head, decode(head.state, key=str(head.id)), step_id)
        effects = [i for i in world.graph(child).order if world.ledger.effect((child.id, i)).stands]
        standing = [i for i in effects if not _is_waived(world, child, state, i)]
        if standing and not waived:
            yield f"{', '.join(standing)} of its child {world.label(child.id)}, which is {child.status.value}, stand"


def _is_waived(world: World, head: Head, state: State, step_id: str) -> bool:
    place = head.id, step_id
    declared = world.graph(head).nodes[step_id].nothing_to_undo or isinstance(state.of(step_id), Waived)
    return declared or _was_skipped(world, place)


def _children(world: World, parent: UUID) -> list[Head]:
    return [head for head in world.database.rows.values() if head.parent_id == parent]


def _is_accounted_for(world: World, graph: Graph, state: State, place: Place) -> bool:
    """Return whether the effect is meant to stand, or the saga says that it stands or may stand."""
    step_id = place[1]
    status = state.of(step_id)
    meant = state.course is Course.FORWARD and isinstance(status, Succeeded)
    declared = graph.nodes[step_id].nothing_to_undo or isinstance(status, Waived) or _was_skipped(world, place)
    return meant or declared or step_id in residue(graph, state)


def _was_skipped(world: World, place: Place) -> bool:
    """Return whether an operator has spoken for the step: what he said of it is his to answer for."""
    return any(row.skipped and row.step_id == place[1] for row in world.database.past[place[0]])
