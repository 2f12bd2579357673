"""Every error this library raises, in one tree.

The messages are written for three in the morning: what happened, to which saga and step, what to do next.
`PermanentError`, `RetryAfter` and `OutcomeUnknown` are raised *by* steps: they tell the engine what it cannot see.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID


class SagaError(Exception):
    """The root of everything that this library raises."""


class SagaDefinitionError(SagaError):
    """A definition says something impossible, or a name is unknown or taken."""


class TypeValidationError(SagaDefinitionError):
    """A step or an `input_map` is annotated with the wrong types, or with none."""


class SagaNotFoundError(SagaError):
    """No saga has this id."""

    def __init__(self, saga_id: UUID | str) -> None:
        super().__init__(
            f"No saga has the id {saga_id}. One that was started with session= is there once it has committed."
        )
        self.saga_id = saga_id


class ActiveSagaAlreadyExistsError(SagaError):
    """Another saga is still active for this `aggregation_id`.

    Attributes:
        aggregation_id: The aggregate that both sagas wanted.
        saga_id: The saga that is active.
    """

    def __init__(self, aggregation_id: str, saga_id: UUID | None) -> None:
        super().__init__(
            f"Saga {saga_id} is still active for aggregation_id {aggregation_id!r}; "
            "wait until it has ended, or end it through SagaAdmin."
        )
        self.aggregation_id = aggregation_id
        self.saga_id = saga_id


class IdempotencyConflictError(SagaError):
    """An `idempotency_key` has started another saga than the one that is asked for now; nothing was written.

    Attributes:
        idempotency_key: The key that both starts gave.
        saga_id: The saga that the key has started.
    """

    def __init__(self, idempotency_key: str, saga_id: UUID, difference: str) -> None:
        super().__init__(
            f"idempotency_key {idempotency_key!r} has started saga {saga_id} before, {difference}. Give another start "
            "a key of its own; start(..., on_conflict='first') answers with the first saga instead."
        )
        self.idempotency_key = idempotency_key
        self.saga_id = saga_id


class SagaStateError(SagaError):
    """The saga is not in a state in which this can be done; nothing was changed."""


class SagaSchemaError(SagaError):
    """A table of the sagas is missing, or is of another version of this library; nothing was changed.

    Attributes:
        table: The name of the table.
    """

    def __init__(self, table: str, state: str, advice: str) -> None:
        super().__init__(f"The saga table {table} is {state}. {advice}")
        self.table = table


class DatabaseTimeoutError(SagaError, TimeoutError):
    """The database did not answer within the limit; what was being written may or may not be durable.

    Attributes:
        advice: What to do about the pool, if all its connections were in use; else empty.
    """

    def __init__(self, seconds: float, advice: str = "") -> None:
        super().__init__(
            f"The database did not answer within {seconds:.3g} s, so its connection was given up. The call may be made "
            f"again; database_timeout sets the limit.{advice and ' '}{advice}"
        )
        self.advice = advice


class SagaFailedError(SagaError):
    """A saga that was to be run has not completed.

    Attributes:
        status: Where it stands: COMPENSATED, FAILED or STUCK.
        error: The error of the step that failed, as text.
        residue: The steps whose effects stand.
    """

    def __init__(self, saga_id: UUID, status: str, error: str | None, residue: tuple[str, ...]) -> None:
        standing = f" What stands: {', '.join(residue)}." if residue else ""
        super().__init__(f"Saga {saga_id} is {status}: {error or 'no step has failed'}.{standing}")
        self.saga_id = saga_id
        self.status = status
        self.error = error
        self.residue = residue


class PayloadError(SagaError, ValueError):
    """A value cannot be stored: it is not JSON-able, too large, or holds characters that PostgreSQL rejects."""


class PermanentError(SagaError):
    """Raised by a step: it did not act, and trying again is useless."""


class OutcomeUnknown(SagaError):  # noqa: N818 - the fixed name of the public API
    """Raised by a step: it cannot tell whether it acted.

    The attempt is recorded as in doubt: a `probe` is asked where the step has one, and a rollback includes the step.
    """


class RetryAfter(SagaError):  # noqa: N818 - names what the step asks for, as HTTP's header does
    """Raised by a step: it did not act, and asks to be tried again after `delay` (if attempts are left)."""

    def __init__(self, delay: timedelta, message: str = "") -> None:
        if not isinstance(delay, timedelta):
            raise TypeError(f"RetryAfter takes a timedelta, not {delay!r}")
        super().__init__(message or f"asked to be retried after {delay}")
        self.delay = delay
