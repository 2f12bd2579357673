"""What the author's code is given of the saga that calls it: a step its context, an `input_map` what came before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar, overload
from uuid import UUID

from pydantic import BaseModel

from .awaited import awaited

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


class Backing(Protocol):
    """What stands behind an attempt: its saga's history, and the lease under which it is made."""

    def once(self, key: str, act: Callable[[], Any], returns: type[BaseModel] | None) -> Coroutine[Any, Any, Any]:
        """See `StepContext.once`."""
        ...

    def remembered(self) -> Mapping[str, Any]:
        """See `StepContext.remembered`."""
        ...

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        """See `StepContext.progress`."""
        ...

    def heartbeat_deadline(self) -> datetime:
        """See `StepContext.heartbeat_deadline`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What a step may know about the saga that calls it.

    One that is made by hand, to test a step without an engine, remembers nothing and shows nobody its progress.

    Attributes:
        attempt: Which attempt this is, from 1.
        idempotency_key: The same on every attempt and after every restart; another one for the compensation.
        in_doubt: An earlier attempt may have acted: it timed out, was cut off, or could not tell.
        initial_data: What the saga was started with, as plain JSON values.
        deadline: When this attempt is given up, if it has a timeout.
        phase: "execute", "compensate" or "confirm".
        session: Of a transactional step, the `AsyncSession` to write by; flushed and committed by the engine. Of
            another step it is false, and any use of it raises `SagaStateError`.
    """

    saga_id: UUID
    saga_name: str
    step_id: str
    aggregation_id: str
    trace_id: str
    attempt: int
    idempotency_key: str
    in_doubt: bool = False
    initial_data: Any = None
    deadline: datetime | None = None
    phase: Literal["execute", "compensate", "confirm"] = "execute"
    session: Any = None
    _kin: Any = field(default=None, repr=False, compare=False)
    _backing: Backing | None = field(default=None, repr=False, compare=False)

    @overload
    def once(self, key: str, act: Callable[[], Awaitable[Any] | Any]) -> Coroutine[Any, Any, Any]: ...

    @overload
    def once(
        self, key: str, act: Callable[[], Awaitable[Any] | Any], *, returns: type[ModelT]
    ) -> Coroutine[Any, Any, ModelT]: ...

    def once(
        self, key: str, act: Callable[[], Awaitable[Any] | Any], *, returns: type[BaseModel] | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Do a part of the step, and remember what it returned: later attempts are given that, and do not do it again.

        When this has been awaited, the result is durable. The part is done at least once: a crash after its effect and
        before the record of it has it done again, so give it a key of its own where it has an effect elsewhere, such
        as ``f"{ctx.idempotency_key}/{key}"``. Callers of one key at the same time take turns, and all but the first
        are given the result. What raises is not remembered. Parts side by side belong into a TaskGroup: what
        `asyncio.gather` leaves running when one of them fails goes on beside the next attempt.

        A step of which a part is begun and has not failed has acted, even if it raises, and whatever its `probe` says:
        it is in doubt then, and is tried again, or undone.

        Args:
            key: What the part is called. `execute` and `on_event` share their names, across all attempts; so do those
                of the compensation, which has names of its own.
            act: Synchronous or not; called without arguments. What it returns must be JSON-able.
            returns: The model to return the result as; without one it comes as plain JSON values, on the first call
                too, as the database keeps them (PostgreSQL keeps ``1e22`` as a whole number, and sorts the keys).

        Raises:
            OutcomeUnknown: The part is done, but could not be remembered: it is no JSON, or its attempt is over.
            SagaStateError: The step is transactional, or this is its probe, or a thread: none of them has parts.
        """
        if self._backing is not None:
            return self._backing.once(key, act, returns)
        return _simply(act)

    @property
    def remembered(self) -> Mapping[str, Any]:
        """What `once` has remembered on the step's way forward, by key, as plain JSON values.

        So a compensation without the step's output still knows what was done. A `confirm` has a way of its own.
        """
        return {} if self._backing is None else self._backing.remembered()

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the step has come, for whoever watches the saga, from any process.

        It is shown within about a second, the latest only, until the attempt ends. It is no record: a crash may lose
        it, and nothing is decided by it.

        Args:
            done: How much is done, in a unit of the step's own.
            total: How much there is, if that is known.
            message: For people; of at most 500 characters.
        """
        if self._backing is not None:
            self._backing.progress(done, total, message)

    @property
    def heartbeat_deadline(self) -> datetime | None:
        """Until when this process surely has the saga, by the database's clock; it moves on while the lease is renewed.

        A step that is about to do what must not be done by two looks whether there is time enough. None without an
        engine.
        """
        return None if self._backing is None else self._backing.heartbeat_deadline()


async def _simply(act: Callable[[], Any]) -> Any:
    return await awaited(act())


@dataclass(frozen=True)
class InputContext:
    """What the `input_map` of a step without `depends_on` is called with.

    It stays as it was at the call, whatever the saga does afterwards.

    Attributes:
        initial_data: What the saga was started with, as plain JSON values.
        context: The saga's context: `saga_name`, `initial_data` and `step_outputs` together.
        step_outputs: The outputs so far, by step id, as plain JSON values.
        latest_event: The event that woke this step, if one did.
        events: All events so far.
        saga_id: The saga.
        latest_event_type: The type of `latest_event`; None if it was a notification without one.
        latest_event_payload: What `latest_event` says, as plain JSON values.
    """

    initial_data: Any
    context: Mapping[str, Any]
    step_outputs: Mapping[str, Any]
    latest_event: Any = None
    events: tuple[Any, ...] | list[Any] | None = None
    saga_id: UUID | None = None
    latest_event_type: str | None = None
    latest_event_payload: Any = None


StepInputMap = Callable[[InputContext], ModelT | dict[str, Any]] | Callable[..., ModelT | dict[str, Any]]
"""What an `input_map` is: it takes an `InputContext`, or the outputs that `depends_on` names, and makes an input."""
