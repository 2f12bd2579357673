"""What must be true when everything has come to rest: the sagas' story against the participants' books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from saga_orchestrator import SagaStatus
from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.projection import residue
from saga_orchestrator.kernel.state import Course, State
from saga_orchestrator.kernel.step_status import Missed, Omitted, Succeeded
from saga_orchestrator.runtime.ids import idempotency_key
from saga_orchestrator.storage.rows import Head

from .database import CHILD, is_booked
from .ledger import Place
from .states import decode

if TYPE_CHECKING:
    from .world import World


def faults_of(world: World) -> Iterator[str]:
    """Yield everything that is wrong with how the run has ended."""
    for saga_id, wish in world.people.promised.items():
        if saga_id not in world.database.rows and saga_id not in world.database.purged:
            yield f"the start of {wish.aggregate} returned, and its saga is lost"
    if not world.database.rows and not world.database.purged and world.plan.crash_at is None:
        yield "no saga was ever born, so nothing is proved"
    yield from _doubled(world)
    for head in world.database.rows.values():
        yield from faults_of_one(world, head)


def faults_of_one(world: World, head: Head) -> Iterator[str]:
    """Yield everything that is wrong with one saga, which is over or stuck."""
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
    graph, state = world.graph(head), decode(head.state)
    for step_id in graph.order if head.status is SagaStatus.COMPLETED else ():
        if not isinstance(state.of(step_id), Omitted | Missed):
            yield from _incomplete(world, graph, state, Place.now(head.id, step_id, state))
    for place in world.ledger.standing(head.id):
        if not _is_accounted_for(world, graph, state, place):
            shown = type(state.of(place.step_id)).__name__
            yield f"the effect of {place.step_id}{place.life} ({shown}) stands, and nothing says so"


def _incomplete(world: World, graph: Graph, state: State, place: Place) -> Iterator[str]:
    if graph.nodes[place.step_id].name == CHILD:
        yield from _childless(world, place)
    elif is_booked(graph, state, place.step_id) and not _was_skipped(world, place):
        effect = world.ledger.effect(place)
        if not effect.stands and not effect.closed:
            yield f"{place.step_id}{place.life} was {'undone' if effect.undone else 'never done'}"


def _childless(world: World, place: Place) -> Iterator[str]:
    """Find fault with a child whose parent is COMPLETED, and which is not."""
    found = [head.status for head in _children(world, place.saga_id) if head.idempotency_key == _key_of_child(place)]
    if found != [SagaStatus.COMPLETED] and not _was_skipped(world, place):
        yield f"its children at {place.step_id}{place.life} are {found}"


def _key_of_child(place: Place) -> str:
    return idempotency_key(place.saga_id, place.step_id, f"execute{place.life}")


def _misreported(world: World, head: Head) -> Iterator[str]:
    """Find fault with a parent that says that all is undone, where something of a child stands.

    One that is COMPLETED says it of the children that it had before a rewind.
    """
    if head.status not in (SagaStatus.COMPENSATED, SagaStatus.COMPLETED):
        return
    graph, state = world.graph(head), decode(head.state)
    for child in _children(world, head.id):
        step_id = child.aggregation_id.rpartition("/")[2]
        is_meant = child.idempotency_key == _key_of_child(Place.now(head.id, step_id, state))
        if (is_meant and head.status is SagaStatus.COMPLETED) or _is_given_up(world, graph, Place(head.id, step_id)):
            continue
        effects = world.ledger.standing(child.id)
        if standing := [place.step_id for place in effects if not _is_given_up(world, world.graph(child), place)]:
            yield f"{', '.join(standing)} of its child {world.label(child.id)}, which is {child.status.value}, stand"


def _is_given_up(world: World, graph: Graph, place: Place) -> bool:
    """Return whether there is nothing to undo, by the definition or by an operator's word."""
    node = graph.nodes.get(place.step_id)
    waived = any(row.step_id == f"waive:{place.step_id}" for row in world.database.past[place.saga_id])
    return (node is not None and node.nothing_to_undo) or waived or _was_skipped(world, place)


def _children(world: World, parent: UUID) -> list[Head]:
    return [head for head in world.database.rows.values() if head.parent_id == parent]


def _is_accounted_for(world: World, graph: Graph, state: State, place: Place) -> bool:
    """Return whether the effect is meant to stand, or the saga says that it stands or may stand."""
    if _is_given_up(world, graph, place):
        return True
    is_meant = state.course is Course.FORWARD and isinstance(state.of(place.step_id), Succeeded)
    stays = state.rewind is not None and place.step_id not in graph.part(state.rewind.to)
    told = is_meant or stays or place.step_id in residue(graph, state)
    return told and place == Place.now(*place[:2], state)


def _was_skipped(world: World, place: Place) -> bool:
    """Return whether an operator has spoken for the step: what he said of it is his to answer for."""
    return any(row.skipped and row.step_id == place.step_id for row in world.database.past[place.saga_id])
