"""Texts that callers give, checked before a database sees them: what one of them rejects is refused for all."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from ..errors import PayloadError, SagaStateError

LONGEST_NAME = 255
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Return whether every database takes the characters of a text."""
    return _UNSTORABLE.search(text) is None


def check_name(what: str, value: Any) -> None:
    """Refuse what is no name: names are looked for, so they are short.

    Raises:
        SagaStateError: It is no text, empty, or too long.
        PayloadError: It holds characters that a database rejects.
    """
    if not isinstance(value, str) or not value or len(value) > LONGEST_NAME:
        shown = repr(value[:40]) + "…" if isinstance(value, str) and len(value) > LONGEST_NAME else repr(value)
        raise SagaStateError(f"{what} has 1 to {LONGEST_NAME} characters; got {shown}.")
    check_characters(what, value)


def check_saga_id(value: Any) -> None:
    """Refuse what is no id of a saga, before a database is asked for it in its own words.

    Raises:
        SagaStateError: It is a text, a start that was not awaited, or something else.
    """
    if not isinstance(value, UUID):
        raise SagaStateError(
            f"saga_id is {value!r:.80}; give it the UUID that `await start(...)` returned; of a text, UUID(text)."
        )


def check_characters(what: str, value: Any) -> None:
    """Refuse what no database takes as a text.

    Raises:
        SagaStateError: It is no text.
        PayloadError: It holds characters that a database rejects.
    """
    if not isinstance(value, str):
        raise SagaStateError(f"{what} is a text; got {value!r}.")
    if not is_storable(value):
        raise PayloadError(f"{what} holds a NUL or half of a surrogate pair, which no database takes: {value[:200]!r}")
