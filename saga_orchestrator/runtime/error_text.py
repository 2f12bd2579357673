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
from ..errors import PayloadError

_LONGEST = 4_000
_PACKAGE = str(Path(__file__).parent.parent)
_DEEPEST = 5
"""How many errors inside each other are told."""
_SEALED = re.compile(r" \[sealed:([A-Za-z0-9_=-]+)\]")


def describe(error: BaseException, where: str = "", payloads: Payloads | None = None) -> str:
    """Return an error as one text that any database takes.

    Args:
        where: Which part of the step has raised; it stands in plain.
        payloads: With a codec, the text shows no value, and carries the sealed message.
    """
    if payloads is None or payloads.codec is None:
        return clean_text(_prefixed(where, _message(error)), _LONGEST)
    shown = clean_text(_prefixed(where, locate(error)), _LONGEST)
    return f"{shown}{_seal(clean_text(_message(error), _LONGEST), payloads)}"


def locate(error: BaseException, depth: int = 0) -> str:
    """Return the classes of an error and of those inside it, each with its frames, and no value."""
    names = [f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in _frames(error)]
    text = f"{type(error).__name__} ({', '.join(names)})" if names else type(error).__name__
    if depth == _DEEPEST:
        return text
    if isinstance(error, BaseExceptionGroup):
        text = f"{text} of [{', '.join(locate(each, depth + 1) for each in error.exceptions)}]"
    return text if error.__cause__ is None else f"{text} <- {locate(error.__cause__, depth + 1)}"


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
    found = list(traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False))
    frames = [frame for frame in found if not frame.filename.startswith(_PACKAGE)] or found
    return [*frames[:2], *frames[2:][-1:]]


def _prefixed(where: str, text: str) -> str:
    return f"{where}: {text}" if where else text


def _message(error: BaseException) -> str:
    """Return the repr of an error and those of its causes."""
    shown, cause, depth = _repr(error), error.__cause__, 0
    while cause is not None and len(shown) < _LONGEST and depth < _LONGEST:
        shown, cause, depth = f"{shown} <- {_repr(cause)}", cause.__cause__, depth + 1
    return shown


def _repr(error: BaseException, depth: int = 0) -> str:
    """Return the repr of an error; of one of Pydantic's, which fields do not fit, and not their values."""
    try:
        if isinstance(error, ValidationError):
            return f"ValidationError of {error.title}: {reasons(error)}"
        if isinstance(error, BaseExceptionGroup) and depth < _DEEPEST:
            inside = ", ".join(_repr(each, depth + 1) for each in error.exceptions)
            return f"{type(error).__name__}({error.message!r}, [{inside}])"
        return repr(error)
    except BaseException:  # noqa: BLE001 - even a repr is the author's code
        return f"{type(error).__name__}(<its repr raised>)"
