"""The values that cross the store's seam: what a row says, and what is to be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from ..kernel.effects import Record
from ..kernel.state import SagaStatus
from ..kernel.value import value


@value(frozen=True, slots=True, kw_only=True)
class Head:
    """One saga row, as it was read. `state`, `context` and `progress` are JSON texts."""

    id: UUID
    saga_name: str
    definition_version: int
    fingerprint: str
    aggregation_id: str
    trace_id: str
    status: SagaStatus
    state: str
    context: str
    revision: int = 0
    step_execution_token: UUID | None = None
    lease_owner: str | None = None
    deadline_at: datetime | None = None
    awaiting: str | None = None
    current_step_index: int = 0
    retry_counter: int = 0
    last_error: str | None = None
    idempotency_key: str | None = None
    parent_id: UUID | None = None
    priority: int = 0
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    progress: str | None = None


class HistoryRow(NamedTuple):
    """One history row: a `Record`, and what its move said. `input` and `output` are JSON texts."""

    saga_id: UUID
    timestamp: datetime
    token: UUID | None
    seq: int
    phase: str
    status: str
    step_id: str
    step_name: str
    attempt: int
    input: str | None
    output: str | None
    error: str | None
    skipped: bool
    actor: str | None
    reason: str | None
    started_at: datetime | None


class Ownership(NamedTuple):
    """Who has the saga from now on, and when somebody must look at it again."""

    token: UUID | None
    lease_owner: str | None
    deadline_at: datetime | None
    awaiting: str | None
    finished_at: datetime | None


class Move(NamedTuple):
    """One saga's transition, to be written if the row is still the one that it was decided upon.

    Attributes:
        revision: The revision that the decision was made on; the row gets the next one.
        token: The execution token that the writer holds.
        ownership: None leaves token, lease, timer and what is awaited as they are.
        letters: Posted in the same transaction.
    """

    saga_id: UUID
    revision: int
    token: UUID | None
    status: SagaStatus
    state: str
    current_step_index: int
    retry_counter: int
    last_error: str | None
    updated_at: datetime
    ownership: Ownership | None
    history: tuple[Record, ...]
    letters: tuple[Letter, ...] = ()

    def rows(self) -> list[HistoryRow]:
        """Return the history rows that the move leaves."""
        return [HistoryRow(self.saga_id, self.updated_at, self.token, *record) for record in self.history]


@value(frozen=True, slots=True)
class Birth:
    """A saga to be inserted. `values`: the user's own columns."""

    head: Head
    values: Mapping[str, Any] = field(default_factory=dict)


class Written(Enum):
    """What became of a write."""

    DONE = "DONE"
    CONFLICT = "CONFLICT"
    """The token holds, but somebody has moved the saga since: read it again and decide again."""
    FENCED = "FENCED"
    """The saga belongs to somebody else now, or is gone."""
    BUSY = "BUSY"
    """Somebody else's transaction holds the row: nothing is written yet, and the same write can be tried again."""
    TAKEN = "TAKEN"
    """A saga with this idempotency key, or an active one with this aggregation_id, is there already."""


Write = Birth | Move
Judge = Callable[[Head, datetime], Move | None]
"""Decides, under the row's lock, what to write; gets the row and the database's time. Pure: it may run again."""


class Fate(Enum):
    """What became of an event."""

    BUFFERED = "BUFFERED"
    """It waits for its wait, or for its saga."""
    APPLIED = "APPLIED"
    REFUSED = "REFUSED"
    EXPIRED = "EXPIRED"
    STALE = "STALE"


class Letter(NamedTuple):
    """An event on its way to a saga. `content` is a JSON text.

    Attributes:
        address: Whom it is for, as its sender said it: `saga:`, `aggregation:` or `correlation:`, and which.
        due_at: When somebody is to look whom it is for; None once somebody has.
    """

    id: UUID
    address: str
    type: str
    event_id: str | None
    correlation_id: str | None
    content: str
    received_at: datetime
    due_at: datetime | None


class Whereabouts(NamedTuple):
    """What has become of a letter, and whose it is."""

    fate: Fate
    saga_id: UUID | None


class Want(NamedTuple):
    """What a saga waits for: an event of one of these types, and, unless None, of this correlation."""

    types: tuple[str, ...]
    correlation: str | None


class Settled(NamedTuple):
    """What became of one letter, and why."""

    letter_id: UUID
    fate: Fate
    reason: str | None = None


class Delivery(NamedTuple):
    """What is to be written when letters have been looked through: the saga's move, and what became of letters."""

    move: Move | None = None
    settled: tuple[Settled, ...] = ()


class Reader(Protocol):
    """Reads a saga's letters, under the row's lock. Pure, as a judge is: it may run again."""

    def wants(self, head: Head) -> tuple[Want, ...] | None:
        """Return what the saga waits for; None if that cannot be told by this process."""
        ...

    def read(self, head: Head, letters: Sequence[Letter], now: datetime) -> Delivery:
        """Say what becomes of the saga and of its letters, oldest first; one that is not settled stays BUFFERED."""
        ...


class Claimable(NamedTuple):
    """What a claimer can run: for each saga name, the definition versions that it knows."""

    versions: Mapping[str, frozenset[int]]


@value(frozen=True, slots=True, kw_only=True)
class SagaFilter:
    """Which sagas to list; None means any."""

    status: frozenset[SagaStatus] | None = None
    saga_name: str | None = None
    aggregation_id: str | None = None
    trace_id: str | None = None
    awaiting: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
