"""Cuts a member out of the text of a JSON object as it stands there: a payload is not written anew."""

from __future__ import annotations

import re
from json import JSONDecoder

_SPACE = re.compile(r"[ \t\n\r]*")
_reader = JSONDecoder(parse_int=str, parse_float=str)  # it looks for the ends of values, and reads none


def text_of(text: str, name: str) -> str:
    """Return the text of a member of a JSON object; of two with one name, that of the last.

    Raises:
        ValueError: The text is no JSON object.
        KeyError: The object has no such member.
    """
    found: str | None = None
    at = _after(text, 0, "{")
    while not text.startswith("}", at):
        key, at = _reader.raw_decode(text, at)
        begin = _after(text, at, ":")
        _, end = _reader.raw_decode(text, begin)
        if key == name:
            found = text[begin:end]
        at = _skip(text, end)
        if not text.startswith("}", at):
            at = _after(text, at, ",")
    if found is None:
        raise KeyError(name)
    return found


def _after(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if not text.startswith(sign, at):
        raise ValueError(f"expected {sign!r} at character {at} of a JSON object")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it matches nothing at the least
    return found.end()
