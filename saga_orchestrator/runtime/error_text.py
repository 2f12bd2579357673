"""Texts of errors: what stands in history, in `last_error` and in logs when code has raised.

Without a payload codec it is the message. With one, a message may quote what the codec encrypts. So the text holds the
classes and the frames of the error, without any value, and beside them the message as the codec has encoded it.

One text carries both parts, so that the kernel, every table and every store keep it as they keep any other text.
"""

from __future__ import annotations

import base64
import re
import traceback
from pathlib import Path, PurePath

from loguru import logger
from pydantic import ValidationError

from ..definition.io import Payloads, clean_text, reasons
from ..definition.plain_errors import cause_of, is_a, members_of, name_type
from ..errors import PayloadError

_LONGEST = 4_000
_PACKAGE = str(Path(__file__).parent.parent)
_DEEPEST = 5
"""How many errors inside each other are told."""
_MOST = 100
"""How many errors of a group are told, and how many groups."""
_MESSAGE = BaseExceptionGroup.__dict__["message"]
_TRACEBACK = BaseException.__dict__["__traceback__"]
_SEALED = re.compile(r" \[sealed:([A-Za-z0-9_=-]+)\]")


def describe(error: BaseException, where: str = "", payloads: Payloads | None = None) -> str:
    """Return an error as one text that any database takes.

    Args:
        where: Which part of the step has raised; it stands in plain.
        payloads: With a codec, the text shows no value, and carries the sealed message.
    """
    try:
        return _describe(error, where, payloads)
    except Exception:  # noqa: BLE001 - an exception is the author's code, whatever is read of it
        return clean_text(_prefixed(where, name_type(error)), _LONGEST)


def _describe(error: BaseException, where: str, payloads: Payloads | None) -> str:
    if payloads is None or payloads.codec is None:
        return clean_text(_prefixed(where, _message(error)), _LONGEST)
    shown = clean_text(_prefixed(where, locate(error)), _LONGEST)
    return f"{shown}{_seal(clean_text(_message(error), _LONGEST), payloads)}"


def locate(error: BaseException) -> str:
    """Return the classes of an error and of those inside it, each with its frames, and no value."""
    try:
        return _locate(error, 0, set())
    except Exception:  # noqa: BLE001 - as above
        return name_type(error)


def _locate(error: BaseException, depth: int, told: set[int]) -> str:
    names = [f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in _frames(error)]
    text = f"{name_type(error)} ({', '.join(names)})" if names else name_type(error)
    if depth == _DEEPEST or _is_enough(error, told):
        return text
    if is_a(error, BaseExceptionGroup):
        text = f"{text} of [{', '.join(_locate(each, depth + 1, told) for each in members_of(error)[:_MOST])}]"
    cause = cause_of(error)
    return text if cause is None else f"{text} <- {_locate(cause, depth + 1, told)}"


def _is_enough(error: BaseException, told: set[int]) -> bool:
    """Return whether what is inside an error is told already, or too much is; groups can be entangled."""
    is_told = id(error) in told or len(told) >= _MOST
    told.add(id(error))
    return is_told


def show(error: BaseException, payloads: Payloads) -> str:
    """Return an error as a log shows it."""
    return describe(error) if payloads.codec is None else locate(error)


def log_failure(error: BaseException, what: str, payloads: Payloads, level: str = "ERROR") -> None:
    """Log a failure with its traceback; with a codec, only with its frames, for a traceback shows values."""
    if payloads.codec is None:
        logger.opt(exception=error).log(level, "{}", what)
    else:
        logger.log(level, "{}: {}", what, locate(error))


def hide_message(text: str | None) -> str | None:
    """Return what a text shows to all, without the sealed message."""
    return None if text is None else _SEALED.sub("", text)


def open_message(text: str | None, payloads: Payloads) -> str | None:
    """Return a text with its sealed message decoded; one that the codec cannot decode stays away."""
    if text is None or payloads.codec is None:
        return text
    return _SEALED.sub(lambda found: _opened(found[1], payloads), text)


def _opened(sealed: str, payloads: Payloads) -> str:
    try:
        message = payloads.load(base64.urlsafe_b64decode(sealed).decode())
    except (PayloadError, ValueError):
        return ": its message cannot be decoded"
    return f": {message}"


def _seal(message: str, payloads: Payloads) -> str:
    try:
        stored = payloads.dump(message, what="The message of an error")
    except PayloadError:
        return ""
    return f" [sealed:{base64.urlsafe_b64encode(stored.encode()).decode()}]"


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the outermost two and the innermost of an error's frames, without the engine's own if there are others."""
    found = list(traceback.StackSummary.extract(traceback.walk_tb(_TRACEBACK.__get__(error)), lookup_lines=False))
    frames = [frame for frame in found if not frame.filename.startswith(_PACKAGE)] or found
    return [*frames[:2], *frames[2:][-1:]]


def _prefixed(where: str, text: str) -> str:
    return f"{where}: {text}" if where else text


def _message(error: BaseException) -> str:
    """Return the repr of an error and those of its causes."""
    told, seen = set[int](), {id(error)}
    shown, cause = _repr(error, told), cause_of(error)
    while cause is not None and id(cause) not in seen and max(len(shown), len(seen)) < _LONGEST:
        seen.add(id(cause))
        shown, cause = f"{shown} <- {_repr(cause, told)}", cause_of(cause)
    return shown


def _repr(error: BaseException, told: set[int], depth: int = 0) -> str:
    """Return the repr of an error; of one of Pydantic's, which fields do not fit, and not their values."""
    try:
        if type(error) is ValidationError:
            return f"ValidationError of {error.title}: {reasons(error)}"
        if not is_a(error, BaseExceptionGroup):
            return str.__str__(repr(error))  # a class of its own may raise when it is cut or joined
        if depth == _DEEPEST or _is_enough(error, told):
            return f"{name_type(error)}(…)"
        inside = ", ".join(_repr(each, told, depth + 1) for each in members_of(error)[:_MOST])
        return f"{name_type(error)}({_MESSAGE.__get__(error)!r}, [{inside}])"
    except BaseException:  # noqa: BLE001 - even a repr is the author's code
        return f"{name_type(error)}(<its repr raised>)"
