"""Where a saga stands, and which way it goes: the words for a whole saga."""

from __future__ import annotations

from enum import StrEnum


class SagaStatus(StrEnum):
    """Where a saga stands. RUNNING, SUSPENDED, COMPENSATING and STUCK are active; the others are final."""

    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPENSATING = "COMPENSATING"
    STUCK = "STUCK"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    FAILED = "FAILED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will move this saga any more, save an order."""
        return self in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED)


class Course(StrEnum):
    """Which way a saga goes."""

    FORWARD = "F"
    BACKWARD = "B"
    HALTED = "H"
