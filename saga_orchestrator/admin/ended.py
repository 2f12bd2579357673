"""Sagas that are over, for operators: what need not be kept is deleted, so that the tables do not grow for ever.

The part of `SagaAdmin` that deletes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from loguru import logger

from ..errors import SagaStateError
from ..kernel.state import SagaStatus
from ..runtime.engine import SagaEngine
from ..runtime.numbers import check_count, check_duration, limit_of
from ..runtime.texts import check_characters, check_name
from ..storage.retention import Bygone
from .statuses import statuses_of

_MOST = 1_000


class EndedSagas:
    """Lets go of the sagas of one engine that are over."""

    _engine: SagaEngine[Any]

    async def purge(
        self,
        *,
        older_than: timedelta,
        statuses: SagaStatus | Iterable[SagaStatus] = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED),
        saga_name: str | None = None,
        unregistered: bool = False,
        limit: int = _MOST,
        timeout: timedelta | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Delete up to `limit` (1 to 1000) sagas that have been over for this long, oldest first; return how many.

        With a saga go its history, the events that were sent to it, and what it waited for, all in one transaction. So
        a call that is cut off has deleted all that it would have returned, or nothing; to delete everything, say
        ``while await admin.purge(older_than=...): ...``. Several processes may do so at once.

        A saga is left alone, however old it is, while somebody needs it:

        - an active one; one whose hook is still to be called; one whose row somebody has locked;
        - one that has COMPLETED, while its definition's `undo_window` is open;
        - a child while its parent is there, and a parent while a child of its is active. Parents go first, and their
          children with a later call.

        What is gone is as if it had never been. Its `idempotency_key` can start another saga; an event that is sent
        again is news. So let `older_than` be longer than anybody repeats himself. Rows of your own that refer to a saga
        are treated as their foreign key says; where that forbids it, nothing is deleted and the database's error is
        raised.

        Args:
            older_than: Judged by the database's clock.
            statuses: How they have ended. A FAILED saga is deleted only if you ask for it, and then also if effects
                stand that nobody has undone or waived: look at `dirty_sagas` first.
            unregistered: Also those COMPLETED ones whose definition this engine does not know. Nobody here can tell
                whether they may still be undone, so they are left alone unless you vouch that they may not.
            timeout: How long it may take, instead of the engine's `database_timeout`.
            actor: Who deletes, and why: for the log, since there is no history left to hold it.

        Raises:
            SagaStateError: A status is not one of a saga that is over, or a number is out of its range.
        """
        wanted = statuses_of(statuses)
        if active := sorted(status for status in wanted if not status.is_terminal):
            raise SagaStateError(f"Only sagas that are over can be deleted; {', '.join(active)} is active.")
        check_duration("older_than", older_than, least=timedelta(0))
        check_count("limit", limit, most=_MOST)
        seconds = limit_of(timeout)
        _check_author(actor, reason)
        if saga_name is not None:
            check_characters("saga_name", saga_name)
        await self._engine.ready()
        bygone = Bygone(
            older_than=older_than,
            statuses=wanted,
            saga_name=saga_name,
            undo_windows=self._engine.registry.undo_windows,
            unregistered=unregistered,
        )
        gone = await self._engine.store.purge(bygone, limit, *seconds)
        if gone:
            logger.info(
                "{} has deleted {} sagas older than {}: {}",
                actor or "somebody",
                gone,
                older_than,
                reason or "no reason given",
            )
        return gone


def _check_author(actor: str | None, reason: str | None) -> None:
    if actor is not None:
        check_name("actor", actor)
    if reason is not None:
        check_characters("reason", reason)
