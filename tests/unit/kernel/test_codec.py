"""The state document: what goes in comes out, and what nobody could have written is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_orchestrator.kernel import codes
from saga_orchestrator.kernel import step_status as steps
from saga_orchestrator.kernel import undo_status as undo
from saga_orchestrator.kernel.codec import NewerStateError, UnreadableStateError, decode, encode
from saga_orchestrator.kernel.state import Action, Course, Rewind, State
from saga_orchestrator.kernel.step_status import (
    Failed,
    Omitted,
    Pending,
    Probing,
    Retrying,
    Running,
    Skipped,
    StepStatus,
    Succeeded,
)
from saga_orchestrator.kernel.undo_status import Passed, UndoFailed, Undoing, Undone, UndoRetrying, Waived

from .sagas import NOW, state

GOLDEN = Path(__file__).parents[2] / "golden"
counts = st.integers(0, 2**40)
ids = st.text(min_size=1).filter(lambda text: "/" not in text)
times = st.none() | st.integers(0, 2**52).map(lambda n: NOW + timedelta(microseconds=n))
wait = (counts, counts, st.lists(st.text(), max_size=3).map(tuple), st.none() | st.text(), st.booleans())
statuses = st.one_of(
    st.builds(Running, counts, counts, times, st.booleans(), counts),
    st.builds(Probing, counts, counts, times, st.booleans(), st.booleans(), counts),
    st.builds(Retrying, counts, counts, times, st.booleans(), counts),
    st.builds(steps.Asking, *wait, times, st.booleans()),
    st.builds(steps.Waiting, *wait, times, st.booleans()),
    st.builds(Failed, counts, st.booleans(), counts),
    st.builds(steps.Missed, counts, st.booleans(), counts),
    st.builds(Succeeded, counts),
    st.builds(Skipped, st.booleans()),
    st.builds(Undoing, counts, counts, times, st.booleans(), counts),
    st.builds(UndoRetrying, counts, counts, times, st.booleans(), counts),
    st.builds(undo.UndoAsking, *wait, times, st.booleans()),
    st.builds(undo.UndoWaiting, *wait, times, st.booleans()),
    st.builds(UndoFailed, counts, st.booleans(), st.booleans(), counts),
    st.builds(Undone, counts, st.booleans()),
    st.builds(Passed, counts, st.booleans()),
    st.builds(Waived),
    st.builds(Omitted),
)


@st.composite
def states(draw: st.DrawFn) -> State:
    steps: dict[str, StepStatus] = draw(st.dictionaries(ids, statuses, max_size=6))
    return State(
        "key",
        {step_id: status for step_id, status in steps.items() if status.is_open},
        {step_id: status for step_id, status in steps.items() if not status.is_open},
        draw(st.sampled_from(Course)),
        draw(counts),
        draw(counts),
        draw(st.booleans()),
        draw(times),
        draw(st.booleans()),
        draw(st.dictionaries(ids, counts, max_size=2)),
        draw(st.dictionaries(ids, counts, max_size=2)),
        draw(st.none() | st.builds(Rewind, ids, st.dictionaries(ids, counts, max_size=2))),
        draw(st.booleans()),
        draw(st.lists(ids, max_size=2).map(tuple)),
        draw(
            st.none() | st.builds(Action, ids, st.none() | ids, st.none() | ids, st.booleans(), st.booleans(), counts)
        ),
    )


@given(states())
def test_a_state_survives_being_stored(before: State) -> None:
    """Decoding what was encoded gives an equal state, and encoding that the very same document."""
    document = encode(before)
    assert decode(document, key="key") == before
    assert encode(decode(document)) == document


def test_every_status_of_a_step_has_a_code() -> None:
    """A status that could not be stored would be lost in the first crash."""
    named = {**vars(steps), **vars(undo)}
    classes = {cls for cls in named.values() if isinstance(cls, type) and issubclass(cls, StepStatus)}
    bases = {StepStatus, steps.Wait, steps.Open, steps.Live}
    assert set(codes.CODES) == classes - bases - {Pending}


def test_the_usual_saga_is_small() -> None:
    """Steps that went well cost their name and a slash."""
    went = state(a=Succeeded(), b=Succeeded(), c=Running())
    assert encode(went) == '{"v":1,"c":"F","n":0,"d":"a/b","s":{"c":"R"}}'


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("state-v*/*.json")), ids=lambda path: path.stem)
def test_documents_of_released_versions_are_read_and_written_alike(path: Path) -> None:
    """These files are history: a change that fails here needs a new version, not new files."""
    document = path.read_text(encoding="utf-8").removesuffix("\n")
    assert encode(decode(document)) == document


def test_the_released_documents_hold_every_code() -> None:
    """No status can change its form unnoticed."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in GOLDEN.glob("state-v*/*.json")]
    assert all(any(key in document for document in found) for key in "dfawpbx")
    assert {facts[0] for document in found for facts in document["s"].values()} == set(codes.CODES.values())


def document(**changes: Any) -> str:
    return json.dumps({"v": 1, "c": "F", "n": 0, "s": {}} | changes)


def test_a_document_of_a_newer_version_is_left_to_newer_processes() -> None:
    """It is not nonsense: somebody can read it."""
    with pytest.raises(NewerStateError, match="version 3; this library reads up to 2"):
        decode(document(v=3, shape="whatever"))


def test_only_a_document_with_an_action_is_of_version_2() -> None:
    """So a process of an older version leaves the saga alone, and no other saga."""
    before = state(a=Succeeded())
    assert '"v":1,' in encode(before)
    with_action = replace(before, action=Action("CLOSE_ALL", "ann", None, closes=True, lost=1))
    assert encode(with_action) == '{"v":2,"c":"F","n":0,"x":["CLOSE_ALL","ann",null,1,0,1],"d":"a","s":{}}'


NONSENSE = {
    "an action in a document of version 1": document(x=["CLOSE_ALL", None, None, 0, 0, 0]),
    "an action without a name": document(v=2, x=[1, None, None, 0, 0, 0]),
    "nothing": "",
    "no JSON": "{",
    "no object": "[]",
    "a number": "1",
    "null": "null",
    "an abyss": "[" * 100_000,
    "no version": json.dumps({"c": "F", "n": 0, "s": {}}),
    "version zero": document(v=0),
    "a negative version": document(v=-1),
    "a version in words": document(v="1"),
    "a true version": document(v=True),
    "half a version": document(v=1.5),
    "no steps": json.dumps({"v": 1, "c": "F", "n": 0}),
    "steps in a list": document(s=[]),
    "an unknown course": document(c="X"),
    "a count that is none": document(n="3"),
    "a negative count": document(n=-1),
    "a true count": document(n=True),
    "crashes that are none": document(r="many"),
    "no crashes, but said": document(r=0),
    "a quarantine that is none": document(q=2),
    "no quarantine, but said": document(q=0),
    "an unknown key": document(x=1),
    "a step without a name": document(d=""),
    "a step twice": document(d="a/a"),
    "a step that succeeded and runs": document(d="a", s={"a": "R"}),
    "a step that succeeded at once and later": document(d="a", s={"a": ["S", 2]}),
    "success where it is not written": document(s={"a": "S"}),
    "names in a list": document(d=["a"]),
    "an unknown status": document(s={"a": "?"}),
    "no status": document(s={"a": []}),
    "a status in an object": document(s={"a": {"R": 1}}),
    "a status that is null": document(s={"a": None}),
    "a status in a list": document(s={"a": [["R"]]}),
    "too many facts": document(s={"a": ["S", 2, 3]}),
    "facts that go without saying": document(s={"a": ["R", 1]}),
    "an attempt in words": document(s={"a": ["R", "2"]}),
    "half an attempt": document(s={"a": ["R", 2.5]}),
    "a flag that is none": document(s={"a": ["K", 2]}),
    "a time before time": document(s={"a": ["R", 1, 0, -1]}),
    "a time after time": document(s={"a": ["R", 1, 0, 10**30]}),
    "a wait for a number": document(s={"a": ["E", 1, 0, [7]]}),
    "a correlation that is a number": document(s={"a": ["E", 1, 0, ["go"], 7]}),
    "a rewind to nowhere": document(w=[]),
    "a rewind to a number": document(w=[1, {}]),
    "attempts in words": document(a={"a": "2"}),
    "fans in a list": document(f=["a"]),
    "no fans, but said": document(f={}),
    "items in words": document(f={"a": "3"}),
    "a pause that is none": document(p=2),
    "no pause, but said": document(p=0),
    "breakpoints in a list": document(b=["a"]),
    "a time in words": document(s={"a": ["R", 1, 0, "2024-02-29"]}),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused(nonsense: str) -> None:
    """What this library could not have written says nothing that it could rely on."""
    with pytest.raises(UnreadableStateError, match="unreadable state document") as refused:
        decode(nonsense)
    assert not isinstance(refused.value, NewerStateError)


def test_a_row_without_a_document_is_refused() -> None:
    """A column that was set to NULL by hand is nonsense, too."""
    nothing: Any = None
    with pytest.raises(UnreadableStateError):
        decode(nothing)


@given(
    st.text()
    | st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists).map(json.dumps)
)
def test_any_text_is_either_read_or_refused(text: str) -> None:
    """A row edited by hand never leads to another error than the one that its readers expect."""
    with contextlib.suppress(UnreadableStateError):
        assert json.loads(encode(decode(text))) == json.loads(text)
