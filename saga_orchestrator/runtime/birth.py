"""How a saga begins: what was asked for, checked, and the row that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isnan
from typing import Any, Literal
from uuid import UUID

from ..definition.saga import SagaDefinition
from ..errors import SagaStateError
from ..kernel.codec import encode
from ..kernel.draft import LONGEST
from ..kernel.events import Claimed
from ..kernel.projection import current_step_index, status_of
from ..kernel.state import State
from ..kernel.transition import decide
from ..kernel.value import value
from ..storage.rows import Birth, Head, Ownership
from .ids import new_id
from .moves import left_to_anybody, taken
from .tenure import context_of
from .texts import check_characters, check_name

OnConflict = Literal["refuse", "first"]
"""What a start does whose key has started another saga: it raises, or answers with that saga."""
_LARGEST_PRIORITY = 2**31 - 1


@value(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A saga that somebody wants, checked before anything is written. `initial`: the stored form of its initial data.

    Raises:
        PayloadError: One of the names holds characters that a database rejects.
        SagaStateError: One of the names is empty or too long, the priority is no number that a column holds, or
            `values` names a column of the engine's.
    """

    saga_name: str
    definition: SagaDefinition
    initial: str
    aggregation_id: str
    trace_id: str
    idempotency_key: str | None = None
    priority: int = 0
    parent_id: UUID | None = None
    on_conflict: OnConflict = "refuse"
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("aggregation_id", self.aggregation_id)
        check_name("trace_id", self.trace_id)
        if self.idempotency_key is not None:
            check_name("idempotency_key", self.idempotency_key)
        if self.on_conflict not in ("refuse", "first"):
            raise SagaStateError(f"on_conflict is 'refuse' or 'first'; got {self.on_conflict!r}.")
        if type(self.priority) is not int or abs(self.priority) > _LARGEST_PRIORITY:
            raise SagaStateError(f"priority is a whole number of at most {_LARGEST_PRIORITY}; got {self.priority!r}.")
        if self.values and (own := self.values.keys() & Head.__dataclass_fields__.keys()):
            names = ", ".join(sorted(own))
            raise SagaStateError(f"values= is for columns of your own; the engine writes {names} itself.")
        for name, said in self.values.items():
            if isinstance(said, str):
                check_characters(f"The value of {name!r:.80}", said)


@dataclass(frozen=True)
class StartResult:
    """What a start has come to.

    Attributes:
        saga_id: The saga that was asked for.
        created: This start has made the saga; False: an earlier start under the same key has.
    """

    saga_id: UUID
    created: bool


def born(wanted: Beginning, now: datetime, owner: str, lease: timedelta) -> tuple[Birth, State]:
    """Return a newborn saga that its maker owns, with its first steps ordered."""
    saga_id = new_id()
    state = decide(wanted.definition.graph, _nascent(wanted, saga_id, now), Claimed(), now=now).state
    return _birth(wanted, saga_id, state, now, taken(owner, now + lease)), state


def unborn(wanted: Beginning, now: datetime) -> Birth:
    """Return a newborn saga that nobody owns and that is due at once."""
    saga_id = new_id()
    return _birth(wanted, saga_id, _nascent(wanted, saga_id, now), now, left_to_anybody(now))


def _nascent(wanted: Beginning, saga_id: UUID, now: datetime) -> State:
    """Return the state before anything has happened."""
    deadline = wanted.definition.graph.deadline
    return State(str(saga_id), deadline=None if deadline is None else now + min(deadline, LONGEST))


def _birth(wanted: Beginning, saga_id: UUID, state: State, now: datetime, ownership: Ownership) -> Birth:
    definition = wanted.definition
    head = Head(
        id=saga_id,
        saga_name=wanted.saga_name,
        definition_version=definition.version,
        fingerprint=definition.fingerprint,
        aggregation_id=wanted.aggregation_id,
        trace_id=wanted.trace_id,
        status=status_of(definition.graph, state),
        state=encode(state),
        context=context_of(wanted.initial),
        step_execution_token=ownership.token,
        lease_owner=ownership.lease_owner,
        deadline_at=ownership.deadline_at,
        current_step_index=current_step_index(definition.graph, state),
        idempotency_key=wanted.idempotency_key,
        parent_id=wanted.parent_id,
        priority=wanted.priority,
        created_at=now,
        updated_at=now,
    )
    return Birth(head, wanted.values)


def equal(one: Any, other: Any) -> bool:
    """Return whether two plain JSON values are the same; a number is no truth value, and NaN is NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, float) and isinstance(other, float) and isnan(one):
        return isnan(other)
    return bool(one == other)
