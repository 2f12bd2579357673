"""With a codec no error of a payload shows its values: neither its text nor its causes do."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer, field_validator
from pydantic_core import PydanticCustomError

from saga_orchestrator.definition.io import Payloads, _unwritable
from saga_orchestrator.errors import PayloadError

SECRET = "4111-1111"


class Backwards:
    """A codec that is no secret."""

    def encode(self, text: str, /) -> str:
        return text[::-1]

    def decode(self, text: str, /) -> str:
        return text[::-1]


class Broken:
    """A codec that quotes what it is given."""

    def encode(self, text: str, /) -> str:
        raise ValueError(f"cannot encode {text}")

    def decode(self, text: str, /) -> str:
        raise ValueError(f"cannot decode {text}")


class Plain(BaseModel):
    card: str


class Number(BaseModel):
    card: int


class Strict(BaseModel):
    card: str

    @field_validator("card")
    @classmethod
    def check(cls, value: str) -> str:
        raise ValueError(f"no {value}")


class Custom(BaseModel):
    card: str

    @field_validator("card")
    @classmethod
    def check(cls, value: str) -> str:
        raise PydanticCustomError("no_card", "no {card}", {"card": value})


class Unwritable(BaseModel):
    card: str

    @field_serializer("card")
    def write(self, value: str) -> str:
        raise ValueError(f"no {value}")


class MuteError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Mute(BaseModel):
    card: str

    @field_serializer("card")
    def write(self, value: str) -> str:
        raise MuteError


class Odd:
    """Plain data that no JSON holds."""

    def __repr__(self) -> str:
        return SECRET


SEALED = Payloads(codec=Backwards())


def stored(payloads: Payloads = SEALED, value: Any = None) -> str:
    """Return a stored payload that holds the secret."""
    return payloads.dump(value or {"card": SECRET}, what="It")


CASES: list[tuple[str, Callable[[Payloads], Any]]] = [
    ("a wrong type", lambda p: p.load_model(Number, stored(p))),
    ("a wrong item", lambda p: p.load_item(Number, stored(p, [{"card": SECRET}]), 0)),
    ("a validator", lambda p: p.load_model(Strict, stored(p))),
    ("a custom error", lambda p: p.load_model(Custom, stored(p))),
    ("a serializer", lambda p: p.dump(Unwritable(card=SECRET), what="It")),
    ("a serializer inside", lambda p: p.dump({"a": [Unwritable(card=SECRET)]}, what="It")),
    ("another's field", lambda p: p.dump({"a": Number.model_construct(card=SECRET)}, what="It")),
    ("an own validator", lambda p: p.dump({"a": Strict.model_construct(card=SECRET)}, what="It")),
]


@pytest.mark.parametrize("act", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_no_value_is_shown_where_a_codec_is(act: Callable[[Payloads], Any]) -> None:
    """A traceback with all its causes names kinds and fields alone."""
    with pytest.raises(PayloadError) as refused:
        act(SEALED)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_a_codec_that_quotes_what_it_is_given_is_not_quoted() -> None:
    """Of its own errors the class is told."""
    broken = Payloads(codec=Broken())
    for act in (lambda: stored(broken), lambda: broken.load(stored())):
        with pytest.raises(PayloadError, match="it raised ValueError") as refused:
            act()
        assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_without_a_codec_an_authors_own_text_and_its_cause_stay() -> None:
    """What nobody encrypts may be shown to who mends it."""
    with pytest.raises(PayloadError, match=f"no {SECRET}") as refused:
        Payloads().load_model(Strict, stored(Payloads()))
    assert refused.value.__cause__ is not None
    with pytest.raises(PayloadError, match=f"no {SECRET}"):
        Payloads().dump(Unwritable(card=SECRET), what="It")


def test_a_serializer_that_raises_what_cannot_be_shown_is_named() -> None:
    """An error without a text has a class."""
    with pytest.raises(PayloadError, match="cannot be stored as JSON"):
        Payloads().dump(Mute(card=SECRET), what="It")


def test_an_error_that_cannot_be_shown_is_named_by_its_class() -> None:
    assert "MuteError" in str(_unwritable(MuteError(), "It"))
