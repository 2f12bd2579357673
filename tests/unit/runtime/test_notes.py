"""Notes on their way into the history: their makers learn whether they are kept."""

from __future__ import annotations

import asyncio

import pytest

from saga_orchestrator import OutcomeUnknown
from saga_orchestrator.kernel.effects import Phase, Record, RecordStatus
from saga_orchestrator.kernel.events import Event, Noted
from saga_orchestrator.runtime.notes import NoteBook, note_of, noted
from saga_orchestrator.runtime.tenure import Past

NOTE = Noted("a", 1, note_of("box", "7"))


def kept(note: Noted) -> Record:
    return Record(0, Phase.ORDER, RecordStatus.SUCCESS, "once:a", "once:a", 1, note.content)


async def test_a_note_that_was_committed_is_kept() -> None:
    """Its maker waits until then, and no longer."""
    events: list[Event] = []
    book = NoteBook(events.append)
    writing = asyncio.ensure_future(book.write(NOTE))
    await asyncio.sleep(0)
    assert (events, writing.done()) == ([NOTE], False)
    book.answer(events, [kept(NOTE)])
    await writing


async def test_a_note_of_an_attempt_that_is_over_is_not_kept() -> None:
    """The part is done all the same, so its step is in doubt; who has decided on other events says nothing of it."""
    book = NoteBook(lambda _: None)
    writing = asyncio.ensure_future(book.write(NOTE))
    await asyncio.sleep(0)
    book.answer([Noted("a", 1, NOTE.content)], [])
    assert not writing.done()
    book.answer([NOTE], [])
    with pytest.raises(OutcomeUnknown, match="step 'a' did a part"):
        await writing


async def test_who_has_stopped_waiting_is_not_told() -> None:
    """A step that was cut off meanwhile stops nobody."""
    book = NoteBook(lambda _: None)
    writing = asyncio.ensure_future(book.write(NOTE))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    assert writing.cancelled()
    book.answer([NOTE], [kept(NOTE)])


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("box", "7"),
        ("n", "1e22"),
        ("k", '{"b":-0.0, "a":12345678901234567890}'),
        ('"\u00e9/\\', "null"),
        ("k", '{"a": [1, "x"]}'),
    ],
)
def test_a_note_reads_back(key: str, stored: str) -> None:
    """The key, and what came of it."""
    assert noted(note_of(key, stored)) == (key, stored)


async def test_the_same_note_of_another_step_is_another() -> None:
    """Items of one fan may say the same; that one is kept says nothing of the other."""
    book = NoteBook(lambda _: None)
    other = Noted("b", 1, NOTE.content)
    writing = asyncio.ensure_future(book.write(other))
    await asyncio.sleep(0)
    book.answer([NOTE, other], [kept(NOTE)])
    with pytest.raises(OutcomeUnknown):
        await writing


async def test_who_comes_when_the_book_is_closed_learns_so() -> None:
    """Nobody reads it any more, and nobody is kept waiting for that."""
    book = NoteBook(lambda _: None)
    writing = asyncio.ensure_future(book.write(NOTE))
    await asyncio.sleep(0)
    book.close()
    for late in (writing, book.write(NOTE)):
        with pytest.raises(OutcomeUnknown, match="its attempt is over"):
            await late


def test_an_undo_that_is_given_the_output_begins_anew() -> None:
    """What the one without it has done in parts was done without it: perhaps there was nothing to do."""
    past = Past()
    undone = Record(0, Phase.ORDER, RecordStatus.SUCCESS, "once-undo:a", "once-undo:a", 1, note_of("refund", "null"))
    done = Record(1, Phase.ORDER, RecordStatus.SUCCESS, "once:a", "once:a", 1, note_of("charge", "1"))
    past.learn([undone, done])
    assert past.notes == {"once-undo:a": {"refund": "null"}, "once:a": {"charge": "1"}}
    past.learn([Record(2, Phase.EXECUTE, RecordStatus.SUCCESS, "a", "A", 1, "{}", "{}")])
    assert past.notes == {"once:a": {"charge": "1"}}
