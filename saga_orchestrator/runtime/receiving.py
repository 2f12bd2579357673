"""What reaches a saga from outside: notifications and events. The part of `SagaOrchestrator` that takes them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Required, TypedDict, Unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import ActiveSagaAlreadyExistsError
from ..kernel.effects import Verdict
from .birth import Beginning, OnConflict
from .engine import SagaEngine
from .mailroom import SignalResult
from .owned import session_of
from .signals import Address, Sent, letter
from .texts import check_saga_id


class Start(TypedDict, total=False):
    """What `SagaOrchestrator.start` takes, and documents, of a saga that is run."""

    saga_name: Required[str]
    initial_data: Required[Any]
    aggregation_id: Required[str]
    trace_id: str | None
    idempotency_key: str | None
    on_conflict: OnConflict
    priority: int
    values: Mapping[str, Any] | None


class Receiver(ABC):
    """Takes what reaches the sagas of one engine."""

    _engine: SagaEngine[Any]

    @abstractmethod
    async def start(self, *, session: AsyncSession | None = None, **wanted: Unpack[Start]) -> UUID:
        """Start a saga."""

    def _beginning(
        self,
        *,
        saga_name: str,
        initial_data: Any,
        trace_id: str | None = None,
        values: Mapping[str, Any] | None = None,
        **said: Any,
    ) -> Beginning:
        """Check what a saga is to be started with, before anything is written.

        Raises:
            SagaError: As for `SagaOrchestrator.start`.
        """
        return Beginning(
            saga_name=saga_name,
            definition=self._engine.registry.newest(saga_name),
            initial=self._engine.payloads.dump(
                initial_data, what="initial_data", is_compared=said.get("idempotency_key") is not None
            ),
            trace_id=os.urandom(16).hex() if trace_id is None else trace_id,
            values=dict(values or {}),
            **said,
        )

    async def notify(self, *, saga_id: UUID, token: UUID, event: Any = None) -> bool:
        """End a wait now, and drive the saga on; return whether the token was that of an open wait.

        A step that waits for an event goes on with this one, whatever its type: each wait has its own token, which
        `SagaSnapshot.waits` tells. A saga that waits for its next attempt makes it at once. The event is kept:
        `input_map` sees it as `latest_event`. A stale, foreign or repeated token is answered False, and changes
        nothing.

        Args:
            event: The payload; or an `Event`, whose type, and whose `correlation_id` if it has one, then have to be
                those that the step waits for.

        Raises:
            SagaNotFoundError: No saga has this id.
            PayloadError: The event cannot be stored, or is not what the step wants; the wait goes on.
        """
        check_saga_id(saga_id)
        return await self._engine.notify(saga_id, token, event) == Verdict.APPLIED.value

    async def signal(
        self,
        event_type: str,
        *,
        saga_id: UUID | None = None,
        aggregation_id: str | None = None,
        correlation_id: str | None = None,
        session: AsyncSession | None = None,
        **said: Unpack[Sent],
    ) -> SignalResult:
        """Tell a saga what has happened, durably: also before it waits for it, and before it exists.

        Once this returns, the event reaches the one wait that it is for, once, whatever crashes; what it sets going
        goes on in the background. Name whom it is for in one of three ways; a `correlation_id` may come with either of
        the others.

        Args:
            event_type: What has happened, as the step names it in its `WaitFor`.
            saga_id: A saga.
            aggregation_id: The active saga of an aggregate; while there is none, the next one.
            correlation_id: Whatever saga waits, or will wait, for this correlation.
            session: The event exists if and when the caller commits this, and is delivered then.
            payload: A model, or plain data.
            event_id: What its sender calls it: an event of one type and id is taken once by each address.
            source: Who sent it.
            occurred_at: When it happened.

        Raises:
            SagaDefinitionError: The type, `event_id` or `correlation_id` is no name.
            SagaStateError: It is for nobody, or for a saga and an aggregate.
            PayloadError: The payload cannot be stored; nothing was written.
        """
        session = session_of(session)
        await self._engine.ready(session)
        to = Address(saga_id, aggregation_id, correlation_id)
        event = letter(self._engine.payloads, to, event_type, self._engine.now(), **said)
        return (await self._engine.signal(event, session)).result

    async def start_or_signal(
        self, event_type: str, *, start: Start, session: AsyncSession | None = None, **said: Unpack[Sent]
    ) -> tuple[UUID, SignalResult]:
        """Tell the active saga of an aggregate what has happened, and start one first if there is none.

        The event is kept before anything else, so a caller that repeats the call under the same `event_id` after a
        crash completes it.

        Args:
            start: What `start` takes.
            session: As for `start` and `signal`.

        Returns:
            The id of the saga, and what has become of the event.

        Raises:
            SagaError: As for `start` and `signal`.
        """
        session = session_of(session)
        await self._engine.ready(session)
        if session is None:
            await self._engine.check_key(self._beginning(**start))
        to = Address(aggregation_id=start["aggregation_id"])
        event = letter(self._engine.payloads, to, event_type, self._engine.now(), **said)
        sent = await self._engine.signal(event, session)
        if session is None and (saga_id := await self._taken_by(sent.letter_id)) is not None:
            return saga_id, sent.result
        try:
            saga_id = await self.start(**start, session=session)
        except ActiveSagaAlreadyExistsError as active:
            if active.saga_id is None:
                raise
            saga_id = active.saga_id
        found = None if session is not None else await self._engine.store.inbox.find(sent.letter_id)
        is_news = sent.result is SignalResult.BUFFERED and found is not None
        return saga_id, SignalResult(found.fate.value) if found is not None and is_news else sent.result

    async def _taken_by(self, letter_id: UUID) -> UUID | None:
        """Return the saga whose event it is, taken or not; None while it is nobody's."""
        found = await self._engine.store.inbox.find(letter_id)
        return None if found is None else found.saga_id
