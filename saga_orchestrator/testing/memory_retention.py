"""Retention in memory: which sagas that are over nobody needs any more; see `storage.retention`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from ..kernel.state import SagaStatus
from ..storage.retention import Bygone, ago
from ..storage.rows import Head


def bygones(rows: Mapping[UUID, Head], bygone: Bygone, now: datetime) -> list[UUID]:
    """Return the sagas that may go, oldest first."""
    needed = {head.parent_id for head in rows.values() if not head.status.is_terminal}
    found = [head.id for head in rows.values() if _is_bygone(head, bygone, now) and head.parent_id not in rows]
    return sorted(saga_id for saga_id in found if saga_id not in needed)


def _is_bygone(head: Head, bygone: Bygone, now: datetime) -> bool:
    """Return whether a saga may go as far as its own row says."""
    is_wanted = head.status in bygone.statuses and bygone.saga_name in (None, head.saga_name)
    if not is_wanted or head.deadline_at is not None or head.finished_at is None:
        return False
    is_old = head.finished_at <= ago(now, bygone.older_than)
    return is_old and (head.status is not SagaStatus.COMPLETED or _is_settled(head, head.finished_at, bygone, now))


def _is_settled(head: Head, finished_at: datetime, bygone: Bygone, now: datetime) -> bool:
    """Return whether a saga that has completed can no longer be undone."""
    window = bygone.undo_windows.get((head.saga_name, head.definition_version))
    return bygone.unregistered if window is None else window < bygone.older_than or finished_at < ago(now, window)
