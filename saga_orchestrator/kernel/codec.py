"""The state document: a compact, versioned JSON text of a `State`, with step ids and statuses and no payloads.

Version 1: ``{"v":1,"c":course,"n":recorded,"r":recoveries,"q":1,"t":deadline,"l":1,"d":"id/id/…","f":{step_id:items},
"a":{step_id:attempts},"w":[step_id,{step_id:attempts}],"p":1,"b":"id/…","s":{step_id:[code,…facts]}}``; zero values are
left out, ``l`` says that the saga is overdue, ``p`` that it is paused, and ``b`` before which steps it is to be. ``d``
names the steps that succeeded at once, as most do, in one text: no id holds a slash, and a database has no keys of
theirs to sort. A step's facts stand in the order of its class's fields, trailing defaults cut; with none left the code
stands alone. Time is whole microseconds since 1970 (UTC). A document is read strictly: what this module would have
written otherwise is refused, since it shows that somebody else has, and nobody knows what he meant.

Version 2 adds ``"x":[name,actor,reason,closes,again,lost]``, the action that is under way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from .codes import CLASSES, CODES
from .state import Action, Course, Rewind, State
from .step_status import SUCCEEDED, Running, StepStatus

VERSION = 2
"""The newest version that is read. A document says the oldest that can hold it, so that older processes read it, too;
version 2 differs by ``x`` alone."""

_FACTS = {cls: tuple((f.name, f.default) for f in fields(cls)) for cls in CODES}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_to_text = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_quoted = lru_cache(maxsize=4096)(_to_text)
_LONG = 400
"""A longer text is not worth being remembered."""
_KNOWN: dict[StepStatus, str] = {Running(): _to_text(CODES[Running])}


class UnreadableStateError(ValueError):
    """A state document that nobody of this version has written."""


class NewerStateError(UnreadableStateError):
    """A state document of a newer version of this library: a newer process can read it."""


def encode(state: State) -> str:
    """Return the document of a state."""
    at_once, others = _by_success(state.done)
    names = "/".join(at_once)
    succeeded = f',"d":{_quoted(names) if len(names) < _LONG else _to_text(names)}' if names else ""
    steps = ",".join([_entry(step_id, status) for step_id, status in (*others, *state.open.items())])
    version = 1 if state.action is None else 2
    return f'{{"v":{version},"c":"{state.course.value}","n":{state.recorded}{_rare(state)}{succeeded},"s":{{{steps}}}}}'


def _rare(state: State) -> str:
    """Return what few states have to say; most pass by here at every step of a saga, so they are asked once."""
    is_held = state.quarantined or state.paused or state.stops or state.rewind is not None or state.action is not None
    if not (is_held or state.recoveries or state.deadline is not None or state.overdue or state.fans or state.spent):
        return ""
    recoveries = f',"r":{state.recoveries}' if state.recoveries else ""
    quarantined = ',"q":1' if state.quarantined else ""
    time = f',"t":{_plain(state.deadline)}' if state.deadline is not None else ""
    overdue = ',"l":1' if state.overdue else ""
    fans = f',"f":{_to_text(state.fans)}' if state.fans else ""
    spent = f',"a":{_to_text(state.spent)}' if state.spent else ""
    rewind = f',"w":{_to_text([state.rewind.to, state.rewind.tried])}' if state.rewind is not None else ""
    paused = ',"p":1' if state.paused else ""
    stops = f',"b":{_to_text("/".join(state.stops))}' if state.stops else ""
    action = f',"x":{_to_text(_facts_of(state.action))}' if state.action is not None else ""
    return f"{recoveries}{quarantined}{time}{overdue}{fans}{spent}{rewind}{paused}{stops}{action}"


def _facts_of(action: Action) -> list[Any]:
    return [_plain(getattr(action, field.name)) for field in fields(Action)]


def decode(text: str, *, key: str = "") -> State:
    """Return the state of a document.

    Raises:
        NewerStateError: Its version is newer than this module's.
        UnreadableStateError: It is nonsense.
    """
    try:
        document = json.loads(text)
        _check_version(document["v"])
        state = _decode(document, key)
        ours = json.loads(encode(state)) == document
    except NewerStateError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableStateError(f"unreadable state document ({error!r}): {text!r:.200}") from error
    if not ours:
        raise UnreadableStateError(f"unreadable state document (it would say {encode(state):.200}): {text!r:.200}")
    return state


def _check_version(version: Any) -> None:
    if _natural(version) > VERSION:
        raise NewerStateError(f"state document of version {version}; this library reads up to {VERSION}")


def _decode(document: dict[str, Any], key: str) -> State:
    at_once: dict[str, StepStatus] = dict.fromkeys(document["d"].split("/"), SUCCEEDED) if "d" in document else {}
    steps = at_once | {step_id: _decode_step(facts) for step_id, facts in document["s"].items()}
    return State(
        key,
        {step_id: status for step_id, status in steps.items() if status.is_open},
        {step_id: status for step_id, status in steps.items() if not status.is_open},
        Course(document["c"]),
        _natural(document["n"]),
        _natural(document.get("r", 0)),
        document.get("q", 0) == 1,
        _decode_fact("until", None, document.get("t")),
        document.get("l", 0) == 1,
        _counts(document.get("f", {})),
        _counts(document.get("a", {})),
        _decode_rewind(document.get("w")),
        document.get("p", 0) == 1,
        tuple(document["b"].split("/")) if "b" in document else (),
        _decode_action(document.get("x")),
    )


def _decode_action(document: Any) -> Action | None:
    if document is None:
        return None
    name, actor, reason, closes, again, lost = document
    who, why = (None if said is None else _text(said) for said in (actor, reason))
    return Action(_text(name), who, why, closes == 1, again == 1, _natural(lost))


def _counts(document: dict[str, Any]) -> dict[str, int]:
    return {step_id: _natural(count) for step_id, count in document.items()}


def _decode_rewind(document: Any) -> Rewind | None:
    if document is None:
        return None
    to, tried = document
    return Rewind(_text(to), _counts(tried))


def _by_success(done: Mapping[str, StepStatus]) -> tuple[Iterable[str], list[tuple[str, StepStatus]]]:
    """Return the steps that succeeded at once, and the others that are at rest."""
    others = [(i, s) for i, s in done.items() if s is not SUCCEEDED and s != SUCCEEDED]
    if not others:
        return done, others
    return [step_id for step_id, status in done.items() if status == SUCCEEDED], others


def _entry(step_id: str, status: StepStatus) -> str:
    return f"{_quoted(step_id)}:{_KNOWN.get(status) or _to_text(_encode_step(status))}"


def _encode_step(status: StepStatus) -> str | list[Any]:
    cls = type(status)
    code = CODES[cls]
    facts: list[Any] = [code]
    width = 1
    for name, default in _FACTS[cls]:
        value = getattr(status, name)
        facts.append(_plain(value))
        if value != default:
            width = len(facts)
    return code if width == 1 else facts[:width]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return int(value) if isinstance(value, bool) else value


def _decode_step(facts: str | list[Any]) -> StepStatus:
    code, *values = [facts] if isinstance(facts, str) else facts
    cls = CLASSES[code]
    known = _FACTS[cls][: len(values)]
    return cls(*(_decode_fact(name, default, v) for (name, default), v in zip(known, values, strict=True)))


def _decode_fact(name: str, default: Any, value: Any) -> Any:
    if name in ("until", "limit"):
        return None if value is None else _EPOCH + _natural(value) * _MICROSECOND
    if name == "types":
        return tuple(_text(kind) for kind in value)
    if name == "correlation":
        return None if value is None else _text(value)
    return bool(_natural(value)) if isinstance(default, bool) else _natural(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnreadableStateError(f"not a text: {value!r}")
    return value


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UnreadableStateError(f"not a count: {value!r}")
    return value
