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


class NoteBook:
    """The notes of one saga that are not committed yet.

    Args:
        put: Tells the driver of the saga what has happened.
    """

    __slots__ = ("_put", "_waiting")

    def __init__(self, put: Callable[[Event], None]) -> None:
        self._put = put
        self._waiting: list[tuple[Noted, asyncio.Future[None]]] = []

    async def write(self, note: Noted) -> None:
        """Make a note durable.

        Raises:
            OutcomeUnknown: Its attempt is over.
        """
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
        kept = {record.input for record in records}
        for waiting in [pair for pair in self._waiting if any(pair[0] is note for note in decided)]:
            self._waiting.remove(waiting)
            note, written = waiting
            if written.done():
                continue
            if note.content in kept:
                written.set_result(None)
            else:
                written.set_exception(OutcomeUnknown(f"step '{note.step_id}' did a part, and its attempt is over"))


def note_of(key: str, stored: str) -> str:
    """Return the content of a note. `stored`: what came of it, as payloads are stored."""
    return f'{{"key":{json.dumps(key)},"value":{stored}}}'


def noted(content: str) -> tuple[str, str]:
    """Return the key of a note, and what came of it, as payloads are stored."""
    note = json.loads(content)
    return note["key"], json.dumps(note["value"])
