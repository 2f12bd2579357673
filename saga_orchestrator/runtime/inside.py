"""From inside which saga a call comes: a step that waits for its own saga would wait for ever, and is told so.

Each saga is driven in a context of its own, which its steps inherit, also in threads and in tasks of theirs. What a
step waits for is noted while it does. So the call that closes a ring of sagas, each waiting for the next, sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple
from uuid import UUID

from ..errors import SagaStateError


class Inside(NamedTuple):
    """The saga that a call comes from. `parent_id`: of a child, the saga that waits for its end."""

    saga_id: UUID
    parent_id: UUID | None = None


_INSIDE: ContextVar[Inside | None] = ContextVar("saga_inside", default=None)
_driven: dict[UUID, int] = {}
_awaited: dict[UUID, list[UUID]] = {}
"""For each saga in this process, those that calls from its steps wait for, and those of its children at work here."""


def inside() -> Inside | None:
    """Return the saga whose step calls, if its driver is at work; what a step leaves behind is free again after it."""
    found = _INSIDE.get()
    return found if found is not None and found.saga_id in _driven else None


@contextmanager
def driving(saga_id: UUID, parent_id: UUID | None) -> Iterator[None]:
    """Drive a saga here: what is begun meanwhile comes from inside of it."""
    token = _INSIDE.set(Inside(saga_id, parent_id))
    _driven[saga_id] = _driven.get(saga_id, 0) + 1
    if parent_id is not None:
        _awaited.setdefault(parent_id, []).append(saga_id)
    try:
        yield
    finally:
        if parent_id is not None:
            _forget(parent_id, saga_id)
        _INSIDE.reset(token)
        _driven[saga_id] -= 1
        if not _driven[saga_id]:
            del _driven[saga_id]


@contextmanager
def waiting_for(saga_id: UUID, what: str, caller: Inside | None) -> Iterator[None]:
    """Wait for a saga in a call of this name.

    Raises:
        SagaStateError: The saga waits for the caller, or is the caller.
    """
    if caller is None:
        yield
        return
    refuse(saga_id, what, caller)
    _awaited.setdefault(caller.saga_id, []).append(saga_id)
    try:
        yield
    finally:
        _forget(caller.saga_id, saga_id)


def _forget(waiting: UUID, awaited: UUID) -> None:
    waits = _awaited[waiting]
    waits.remove(awaited)
    if not waits:
        del _awaited[waiting]


def refuse(saga_id: UUID, what: str, caller: Inside | None) -> None:
    """Refuse to wait for a saga that waits for the caller.

    Raises:
        SagaStateError: It does.
    """
    if caller is None:
        return
    if saga_id == caller.saga_id:
        raise SagaStateError(
            f"Saga {saga_id}: {what} was called from a step of this very saga, which would wait for itself for ever. "
            "Return from the step instead; the saga goes on by itself."
        )
    if _waits_for(saga_id, caller.saga_id):
        raise SagaStateError(
            f"Saga {saga_id}: {what} was called from a step of saga {caller.saga_id}, for which saga {saga_id} waits. "
            "Both would wait for ever. Have the one send the other an event instead."
        )


def refuse_ancestor(saga_id: UUID, ancestor: UUID, what: str, caller: Inside) -> None:
    """Refuse to wait in a child for a saga that waits for the child's end: for an ancestor, or for one that awaits it.

    Raises:
        SagaStateError: The saga is the ancestor, or waits for it.
    """
    if _waits_for(saga_id, ancestor):
        raise SagaStateError(
            f"Saga {saga_id}: {what} was called from a step of its child {caller.saga_id}, for whose end it waits. "
            "Both would wait for ever."
        )


def _waits_for(saga_id: UUID, other: UUID) -> bool:
    seen, left = set[UUID](), [saga_id]
    while left:
        found = left.pop()
        if found == other:
            return True
        if found not in seen:
            seen.add(found)
            left += _awaited.get(found, ())
    return False
