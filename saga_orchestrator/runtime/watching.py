"""Waiting for what becomes of a saga, by whatever process it is driven: its row is looked at, now and then."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from ..definition.child import ENDED
from ..errors import SagaNotFoundError
from ..kernel.codec import UnreadableStateError, decode
from ..kernel.projection import waits
from ..kernel.state import SagaStatus
from ..storage.rows import Head
from .engine import SagaEngine
from .inside import Inside, inside, refuse, refuse_ancestor, waiting_for
from .texts import check_saga_id

_POLLS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds between looks at a saga; the last one repeats."""
_IS_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A saga's id as a child's end is awaited by; an author's own wait may be for anything."""


async def head_of(engine: SagaEngine[Any], saga_id: UUID) -> Head:
    """Return a saga's row.

    Raises:
        SagaNotFoundError: No saga has this id.
        SagaStateError: It is no id.
    """
    check_saga_id(saga_id)
    await engine.ready_to_read()
    head = await engine.store.head(saga_id)
    if head is None:
        raise SagaNotFoundError(saga_id)
    return head


async def ended(engine: SagaEngine[Any], saga_id: UUID) -> Head:
    """Return the row of a saga that has come to rest, and wait until it has."""
    return (await _ended(engine, saga_id, looks_below=False))[0]


async def ended_or_held_up(engine: SagaEngine[Any], saga_id: UUID) -> tuple[Head, UUID | None]:
    """Return the row of a saga that has come to rest, or waits for a saga that is STUCK; and the id of that one."""
    return await _ended(engine, saga_id, looks_below=True)


async def _ended(engine: SagaEngine[Any], saga_id: UUID, *, looks_below: bool) -> tuple[Head, UUID | None]:
    looks, caller = 0, inside()
    if caller is not None and not is_at_rest(await head_of(engine, saga_id)):
        await _refuse_ancestors(engine, saga_id, caller)
    with waiting_for(saga_id, "result", caller):
        while not is_at_rest(head := await head_of(engine, saga_id)):
            if looks_below and (holder := await _stuck_below(engine, head)) is not None:
                return head, holder
            await engine.rest(saga_id, _pause(looks))
            looks += 1
    return head, None


async def _stuck_below(engine: SagaEngine[Any], head: Head) -> UUID | None:
    """Return the saga that is STUCK and that this one waits for: a child of its, or a child's."""
    for child_id in _awaited_children(head):
        child = await engine.store.head(child_id)
        if child is not None and child.status is SagaStatus.STUCK:
            return child_id
        if child is not None and (below := await _stuck_below(engine, child)) is not None:
            return below
    return None


def _awaited_children(head: Head) -> list[UUID]:
    """Return the children whose end a saga waits for, and those that it has."""
    if ENDED not in (head.awaiting or ""):
        return []
    said = [status.correlation for _, status in waits(decode(head.state)) if ENDED in status.types]
    return [UUID(correlation) for correlation in said if correlation is not None and _IS_ID.fullmatch(correlation)]


async def _refuse_ancestors(engine: SagaEngine[Any], saga_id: UUID, caller: Inside) -> None:
    ancestor = caller.parent_id
    while ancestor is not None:
        refuse_ancestor(saga_id, ancestor, "result", caller)
        head = await engine.store.head(ancestor)
        ancestor = None if head is None else head.parent_id


async def moves(engine: SagaEngine[Any], saga_id: UUID) -> AsyncIterator[Head]:
    """Yield a saga's row, and again when it has moved or shown progress; the last one is that of one come to rest.

    Moves that follow quickly on each other are one. The longer nothing happens, the seldomer it is looked at.

    Raises:
        SagaStateError: A step of the saga asks, or of one that the saga waits for. Nothing has happened for a while,
            and no other step is under way that could move the saga.
    """
    seen: tuple[int, str | None] | None = None
    looks, caller = 0, inside()
    while True:
        is_shown = not engine.board.is_to_show(saga_id)
        head = await head_of(engine, saga_id)
        if (head.revision, head.progress) != seen:
            seen, looks = (head.revision, head.progress), 0
            yield head
        if is_at_rest(head):
            return
        if caller is not None and is_shown and looks > len(_POLLS) and not _moves_beside(head):
            refuse(saga_id, "watch", caller)
        await asyncio.sleep(_pause(looks))
        engine.check_open()
        looks += 1


def _moves_beside(head: Head) -> bool:
    """Return whether a saga has other steps under way than one, so that it may move while that one waits."""
    try:
        return len(decode(head.state).open) > 1
    except UnreadableStateError:
        return False


def is_at_rest(head: Head) -> bool:
    """Return whether nothing will move a saga by itself: it is over, or a person has to decide."""
    return head.status.is_terminal or head.status is SagaStatus.STUCK


def _pause(looks: int) -> float:
    return _POLLS[min(looks, len(_POLLS) - 1)]
