"""What SQLite's batched write sends: a row of values for a birth, a move, or a further entry of a history.

The types are written as SQLAlchemy writes them: UUIDs as 32 hexadecimal digits, times as UTC texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from ..kernel.effects import Record
from ..kernel.status import SagaStatus
from .direct import ENTRY, HEAD, KEPT, MOVE, NO_ENTRY
from .rows import Birth, Move

Row = tuple[Any, ...]
SENT_HEAD = (*HEAD, "updated_at")
SENT = (*MOVE, *(f"entry_{name}" for name in ENTRY))
BIRTH, STEP, MOVED, FURTHER = range(4)
"""What a row of the view is for."""
WIDTH = 1 + max(len(SENT_HEAD), len(SENT))
_NO_MOVE: Row = (None,) * (WIDTH - 1 - len(SENT_HEAD))
_FEW, _STRIDE = 4, 16
_EPOCH, _SECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=1)


def values_of(births: Sequence[Birth], moves: Sequence[Move]) -> tuple[int, list[Any]]:
    """Return how many rows a batch has, and their values one after the other.

    They are filled up to one of few numbers of rows: each is a statement that SQLite keeps.
    """
    values: list[Any] = []
    for birth in births:
        values += _born(birth)
    for move in moves:
        values += _moved(move)
    count = len(values) // WIDTH
    if count > _FEW:
        missing = -count % _STRIDE
        values += (None,) * (missing * WIDTH)
        count += missing
    return count, values


def _born(birth: Birth) -> Row:
    head = birth.head
    created = _text(head.created_at)
    return (
        BIRTH,
        head.id.hex,
        head.saga_name,
        head.definition_version,
        head.fingerprint,
        head.aggregation_id,
        head.trace_id,
        head.status.value,
        head.state,
        head.context,
        _hex(head.step_execution_token),
        head.lease_owner,
        _text(head.deadline_at),
        head.idempotency_key,
        _hex(head.parent_id),
        head.priority,
        created,
        created,
        *_NO_MOVE,
    )


def _moved(move: Move) -> Row:
    """Return the values of a move's row, and of one for each further entry of its history."""
    saga_id, revision, token, status, state, index, failures, error, updated_at, ownership, history, _ = move
    kind = STEP if status is SagaStatus.RUNNING else MOVED
    owned: Row = KEPT
    if ownership is not None:
        kind = MOVED
        new_token, owner, deadline_at, awaiting, finished_at = ownership
        owned = (True, _hex(new_token), owner, _text(deadline_at), awaiting, _text(finished_at))
    here = saga_id.hex, revision, _hex(token), status.value, state, index, failures, error, _text(updated_at), *owned
    if len(history) == 1:
        return (kind, *here, *_entry(history[0]))
    if not history:
        return (kind, *here, *NO_ENTRY)
    rows: Row = (kind, *here, *_entry(history[0]))
    for record in history[1:]:
        rows += (FURTHER, *here, *_entry(record))
    return rows


def _entry(record: Record) -> Row:
    seq, phase, status, *facts, started_at = record
    return seq, phase.value, status.value, *facts, _text(started_at)


def _hex(value: UUID | None) -> str | None:
    return None if value is None else value.hex


def _text(moment: datetime | None) -> str | None:
    """Return a time as a text; most times of a batch are of the same second, so that much of it is known."""
    if moment is None:
        return None
    return f"{_second((moment - _EPOCH) // _SECOND)}.{moment.microsecond:06}"


@lru_cache(maxsize=64)
def _second(since_1970: int) -> str:
    return (_EPOCH + since_1970 * _SECOND).isoformat(" ")[:19]
