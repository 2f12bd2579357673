"""Notes on their way into a saga's history: who has made them waits until they are there.

They go the way of any event, through the driver's mailbox and its commit. So a note is fenced as a reply is: that of an
attempt that is over, or of an owner that is none any more, is not kept, and its maker learns that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable

from ..errors import OutcomeUnknown
from ..kernel.effects import Record
from ..kernel.events import Event, Noted
from ..kernel.notes import name_of
from .members import text_of

Place = tuple[str, int, bool]
"""Where a part is done: the step, the attempt, and whether that is one of its undo."""


class NoteBook:
    """What the steps of one saga do in parts: which have been begun, and the notes of those that are done.

    Args:
        put: Tells the driver of the saga what has happened.
    """

    __slots__ = ("_begun", "_put", "_waiting", "is_closed")

    def __init__(self, put: Callable[[Event], None]) -> None:
        self._put = put
        self._begun: dict[Place, int] = {}
        self._waiting: list[tuple[Noted, asyncio.Future[None]]] = []
        self.is_closed = False

    def begin(self, place: Place) -> None:
        """Say that an attempt begins a part: from now on it may have acted."""
        self._begun[place] = self._begun.get(place, 0) + 1

    def fail(self, place: Place) -> None:
        """Say that a part has failed, and has not acted."""
        self._begun[place] -= 1

    def has_begun(self, place: Place) -> bool:
        """Return whether an attempt has begun a part that has not failed."""
        return self._begun.get(place, 0) > 0

    async def write(self, note: Noted) -> None:
        """Make a note durable.

        Raises:
            OutcomeUnknown: Its attempt is over.
        """
        if self.is_closed:
            raise _too_late(note)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((note, written))
        self._put(note)
        await written

    def answer(self, events: Iterable[Event], records: Iterable[Record]) -> None:
        """Tell those whose notes were decided what became of them.

        Args:
            events: What was decided.
            records: What was committed of it.
        """
        if not self._waiting:
            return
        decided = [event for event in events if isinstance(event, Noted)]
        kept = {(record.step_id, record.attempt, record.input) for record in records}
        for waiting in [pair for pair in self._waiting if any(pair[0] is note for note in decided)]:
            self._waiting.remove(waiting)
            note, written = waiting
            if not written.done():
                is_kept = (name_of(note.step_id, undoing=note.undoing), note.attempt, note.content) in kept
                written.set_result(None) if is_kept else written.set_exception(_too_late(note))

    def close(self) -> None:
        """Keep no note any more: who waits for one, or brings one later, learns that its attempt is over."""
        self.is_closed = True
        waiting, self._waiting = self._waiting, []
        for note, written in waiting:
            if not written.done():
                written.set_exception(_too_late(note))


def _too_late(note: Noted) -> OutcomeUnknown:
    return OutcomeUnknown(f"step '{note.step_id}' did a part, and its attempt is over")


def note_of(key: str, stored: str) -> str:
    """Return the content of a note. `stored`: what came of it, as payloads are stored."""
    return f'{{"key":{json.dumps(key)},"value":{stored}}}'


def noted(content: str) -> tuple[str, str]:
    """Return the key of a note, and what came of it, as payloads are stored."""
    key: str = json.loads(text_of(content, "key"))
    return key, text_of(content, "value")
