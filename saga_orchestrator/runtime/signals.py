"""Events as they are sent: what a caller said, checked, and the letter that it becomes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict, Unpack
from uuid import UUID

from ..definition.io import Payloads
from ..definition.waiting import Event, check_event_name
from ..errors import SagaDefinitionError, SagaStateError
from ..storage.inbox import AGGREGATION, CORRELATION, SAGA, address_of
from ..storage.rows import Letter
from .ids import new_id
from .letters import sealed
from .texts import check_name

UNDELIVERED = timedelta(seconds=5)
"""After how long an event that was posted and not delivered is somebody else's to deliver."""


class Sent(TypedDict, total=False):
    """What else an event says; `SagaOrchestrator.signal` documents it."""

    payload: Any
    event_id: str | None
    source: str | None
    occurred_at: datetime | None


class Address(NamedTuple):
    """Whom an event is for: a saga, the active saga of an aggregate, or whoever waits for its correlation."""

    saga_id: UUID | None = None
    aggregation_id: str | None = None
    correlation_id: str | None = None

    def __str__(self) -> str:
        if self.saga_id is not None:
            return address_of(SAGA, _as_id(self.saga_id))
        if self.aggregation_id is not None:
            check_name("aggregation_id", self.aggregation_id)
            return address_of(AGGREGATION, self.aggregation_id)
        if self.correlation_id is not None:
            return address_of(CORRELATION, self.correlation_id)
        raise SagaStateError("An event is for somebody: name saga_id, aggregation_id or correlation_id.")


def _as_id(saga_id: Any) -> UUID:
    try:
        return saga_id if isinstance(saga_id, UUID) else UUID(saga_id)
    except (ValueError, TypeError, AttributeError):
        raise SagaStateError(f"saga_id is {saga_id!r:.80}; give it the UUID that start returned.") from None


def letter(payloads: Payloads, to: Address, event_type: str, now: datetime, **said: Unpack[Sent]) -> Letter:
    """Return an event as it is kept.

    Raises:
        SagaDefinitionError: Its type, id or correlation is no name.
        SagaStateError: It is for nobody, or for two.
        PayloadError: Its payload cannot be stored.
    """
    if to.saga_id is not None and to.aggregation_id is not None:
        raise SagaStateError("An event is for one saga: name saga_id or aggregation_id, not both.")
    check_event_name("The type of an event", event_type)
    names = {"event_id": said.get("event_id"), "correlation_id": to.correlation_id, "source": said.get("source")}
    for name, value in names.items():
        if value is not None:
            check_event_name(f"The {name} of an event", value)
    occurred_at = said.get("occurred_at")
    if occurred_at is not None and not isinstance(occurred_at, datetime):
        raise SagaDefinitionError(f"The occurred_at of an event is {occurred_at!r}; give it a datetime.")
    event = Event(
        type=event_type,
        payload=said.get("payload"),
        event_id=said.get("event_id"),
        correlation_id=to.correlation_id,
        source=said.get("source"),
        occurred_at=said.get("occurred_at"),
    )
    content = sealed(payloads, event)
    due = now + UNDELIVERED
    return Letter(new_id(now), str(to), event_type, event.event_id, to.correlation_id, content, now, due)
