"""Writes doubts that come late: the saga has no driver any more, or another owner.

A transactional step that has ended its transaction itself may be told of late: its lease was lost, its time was up, or
an order has moved the saga. What it has written may stand, and the saga must say so. The engine writes the doubt
without regard to who owns the saga, as it would an order. It goes on until the database has taken it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from loguru import logger

from ..errors import SagaError
from ..kernel.effects import Verdict
from ..kernel.events import Doubted
from ..storage.rows import Head, Judge, Move
from .background import Background
from .claims import Claims, Intake
from .error_text import locate

_PAUSE = 0.5
"""Seconds between two tries."""


class Office(Protocol):
    """What late doubts need of the engine that they are told in."""

    background: Background

    async def apply(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None, float]:
        """Apply a judge to one saga, durably; return the row, its move, and when that was begun."""

    def follow(self, head: Head, move: Move | None, since: float) -> object:
        """Drive a saga that has just been moved, if that gave it to this engine; else tell its driver."""


def late_doubts(office: Office, claims: Claims) -> Callable[[UUID, Doubted], None]:
    """Return what writes a doubt in the background."""

    def tell(saga_id: UUID, doubted: Doubted) -> None:
        _ = office.background.begin(_tell(office, claims, saga_id, doubted))

    return tell


async def _tell(office: Office, claims: Claims, saga_id: UUID, doubted: Doubted) -> None:
    while True:
        try:
            if await _is_told(office, Intake(claims, doubted), saga_id):
                return
        except SagaError as error:
            logger.error("saga {}, step '{}': its doubt stands nowhere: {}", saga_id, doubted.step_id, locate(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it may pass, and nobody else knows of the doubt
            logger.debug("saga {}: a doubt could not be written yet: {}", saga_id, locate(error))
        await asyncio.sleep(_PAUSE)


async def _is_told(office: Office, intake: Intake, saga_id: UUID) -> bool:
    """Write a doubt; return False if an action is under way, which it may not cross."""
    head, move, since = await office.apply(saga_id, intake.judge)
    if intake.verdict is Verdict.REFUSED:
        return False
    office.follow(head, move, since)
    return True
