"""Payloads: what is stored reads back as what it was, and what could not be stored is refused with a reason."""

from __future__ import annotations

import base64
import json
from collections import UserDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, computed_field, field_serializer

from saga_orchestrator.definition.io import Payloads, clean_text
from saga_orchestrator.errors import PayloadError

PLAIN = Payloads()
WHAT = "The output of step 'charge'"
NUMBER = UUID("5e0ac03a-3407-4fe6-a06e-720dc79f618b")
MOMENT = datetime(2026, 11, 21, 8, 30, 0, 250, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    item: str
    price: Decimal


class Rich(BaseModel):
    """A field of every kind that JSON has no word for."""

    amount: Decimal = Decimal("10.00")
    at: datetime = MOMENT
    day: date = date(2026, 11, 21)
    hour: time = time(8, 30)
    lasts: timedelta = timedelta(days=1, microseconds=5)
    number: UUID = NUMBER
    colour: Colour = Colour.RED
    blob: bytes = "naïve".encode()
    tags: frozenset[str] = frozenset({"a"})
    pair: tuple[int, str] = (1, "x")
    lines: list[Line] = [Line(item="x", price=Decimal("0.10"))]
    note: str | None = None
    unusual: Json[list[int]] = Field(default_factory=lambda: [1, 2])


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)
    value: str = Field(alias="raw")
    raw: str | None = Field(default=None, alias="somethingElse")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.value)


class Blob(BaseModel):
    blob: bytes


class Base64Blob(Blob):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Measure(BaseModel):
    value: float | None = 0.0
    more: list[float] = []


class Text(BaseModel):
    text: str


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    items: list[T]


@dataclass
class Point:
    x: int
    label: str | None = None


class Reversed:
    """A codec that is easy to follow."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, text: str) -> str:
        return text[::-1]


class Broken:
    """A codec that has lost its key."""

    def encode(self, text: str) -> str:
        raise LookupError("no key")

    def decode(self, text: str) -> str:
        raise LookupError("no key")


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


class TestModels:
    @pytest.mark.parametrize(
        "value",
        [
            Rich(),
            Rich(note="null and NaN and Infinity"),
            Aliased(raw="x"),
            Base64Blob(blob=b"\xff\x00"),
            Page[Rich](items=[Rich()]),
            Text(text='Zoë \U0001f600 \\u0000 \\\\u0000 " \n\t\x01'),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_model_reads_back_as_it_was(self, value: BaseModel) -> None:
        """Whatever its fields, aliases and computed fields are."""
        assert PLAIN.load_model(type(value), PLAIN.dump(value, what=WHAT)) == value

    def test_a_model_is_stored_by_field_name(self) -> None:
        """What an input_map and an operator see are the names of the code, not of somebody's wire format."""
        assert PLAIN.load(PLAIN.dump(Aliased(raw="x"), what=WHAT)) == {"value": "x", "raw": None}

    def test_a_payload_that_does_not_fit_is_refused_without_showing_it(self) -> None:
        """The message says where and why, but not what: it will be logged."""
        with pytest.raises(PayloadError) as refused:
            PLAIN.load_model(Page[int], '{"items":["secret"]}')

        assert "does not fit Page[int]: items.0: Input should be a valid integer" in str(refused.value)
        assert "secret" not in str(refused.value)

    def test_keys_and_tags_are_values_and_are_not_shown(self) -> None:
        """Fields are named wherever they are, also those that nobody declares."""

        class Cat(BaseModel):
            kind: Literal["cat"]
            born: UUID

        class Dog(BaseModel):
            kind: Literal["dog"]

        class House(BaseModel):
            model_config = ConfigDict(extra="forbid")
            lives: dict[str, int] = {}
            pet: Cat | Dog | None = Field(None, discriminator="kind")
            lines: list[Line] = []

        for text, said in {
            '{"lives":{"4711":"x"}}': "lives.[key]: Input should be a valid integer",
            '{"pet":{"kind":"4711"}}': "pet: Input has none of the expected tags",
            '{"pet":{"kind":"cat","born":"4711$"}}': "pet.cat.born: Input should be a valid UUID",
            '{"lines":[{"item":"4711"}]}': "lines.0.price: Field required",
            '{"pett":"4711"}': "pett: Extra inputs are not permitted",
        }.items():
            with pytest.raises(PayloadError) as refused:
                PLAIN.load_model(House, text)
            shown = str(refused.value)
            assert said in shown
            assert "4711" not in shown

    def test_a_payload_of_another_kind_is_refused(self) -> None:
        """The message has a subject even where no field is to blame."""
        with pytest.raises(PayloadError, match="does not fit Text: it: "):
            PLAIN.load_model(Text, "5")

    def test_bytes_that_are_not_text_need_a_setting(self) -> None:
        """The message says which."""
        with pytest.raises(PayloadError, match="set ser_json_bytes='base64' and val_json_bytes='base64'"):
            PLAIN.dump(Blob(blob=b"\xff"), what=WHAT)

    def test_a_serializer_that_raises_is_a_payload_error(self) -> None:
        """The author's own error is shown, and the value is named."""

        class Faulty(BaseModel):
            price: int = 1

            @field_serializer("price")
            def shown(self, value: int) -> str:
                raise LookupError("no currency")

        with pytest.raises(PayloadError, match=f"{WHAT} cannot be stored as JSON: .*no currency"):
            PLAIN.dump(Faulty(), what=WHAT)

    @pytest.mark.parametrize("lost", [Measure(value=float("nan")), Measure(value=None, more=[1.0, float("-inf")])])
    def test_a_float_that_would_become_null_is_refused(self, lost: Measure) -> None:
        """A model writes it as null, and would read back as something else or not at all."""
        with pytest.raises(PayloadError, match=r"infinite or not a number, which Measure writes as null. Set ser_json"):
            PLAIN.dump(lost, what=WHAT)

    def test_null_is_no_sign_of_a_lost_float(self) -> None:
        """None is a value like any other, beside text, bytes, sets and models."""

        class Mixed(Measure):
            names: set[str] = {"a"}
            blob: bytes = b"b"
            inner: Measure = Measure()

        value = Mixed(value=None, more=[1.5])

        assert PLAIN.load_model(Mixed, PLAIN.dump(value, what=WHAT)) == value

    def test_a_model_may_write_such_floats_as_text(self) -> None:
        """With the setting that the message names, they read back."""

        class Told(Measure):
            model_config = ConfigDict(ser_json_inf_nan="strings")
            note: str | None = None

        value = Told(value=float("inf"), more=[float("-inf")])

        assert PLAIN.load_model(Told, PLAIN.dump(value, what=WHAT)) == value

    def test_a_model_that_writes_no_json_is_refused(self) -> None:
        """A bare NaN is not JSON, and PostgreSQL would reject it."""

        class Bare(Measure):
            model_config = ConfigDict(ser_json_inf_nan="constants")

        with pytest.raises(PayloadError, match=f"{WHAT} would not be readable again"):
            PLAIN.dump(Bare(value=float("nan")), what=WHAT)


class TestPlainValues:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ({"at": MOMENT}, {"at": "2026-11-21T08:30:00.000250Z"}),
            ([Decimal("1.10"), NUMBER, Colour.RED], ["1.10", str(NUMBER), "red"]),
            ({"blob": b"\xff\x00"}, {"blob": base64.urlsafe_b64encode(b"\xff\x00").decode()}),
            ({"line": Line(item="x", price=Decimal("1.0"))}, {"line": {"item": "x", "price": "1.0"}}),
            ({"aliased": Aliased(raw="x")}, {"aliased": {"value": "x", "raw": None}}),
            (Point(1), {"x": 1, "label": None}),
            ((1, {2}), [1, [2]]),
            ({1: "a", NUMBER: "b"}, {"1": "a", str(NUMBER): "b"}),
            (float("nan"), "NaN"),
            (None, None),
            (True, True),
            (2**80, 2**80),
            ("text", "text"),
        ],
    )
    def test_plain_data_becomes_plain_json(self, value: Any, expected: Any) -> None:
        """Dates, decimals, ids, enums, bytes, models and dataclasses in a dict are no obstacle."""
        assert PLAIN.load(PLAIN.dump(value, what=WHAT)) == expected

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        )
    )
    def test_json_reads_back_or_is_refused(self, value: Any) -> None:
        """There is no third way: what holds a NUL is refused, everything else is what it was."""
        holds_nul = "\\u0000" in json.dumps(value).replace("\\\\", "")
        try:
            text = PLAIN.dump(value, what=WHAT)
        except PayloadError:
            assert holds_nul
        else:
            assert not holds_nul
            assert PLAIN.load(text) == json.loads(text) == value

    @pytest.mark.parametrize("value", [object(), {"a": object()}, print, {"a": UserDict()}, Text])
    def test_what_is_not_json_able_is_refused(self, value: Any) -> None:
        """The message names the value and says what would do."""
        with pytest.raises(
            PayloadError, match=f"{WHAT} cannot be stored as JSON: .*Give it a Pydantic model, or plain"
        ):
            PLAIN.dump(value, what=WHAT)

    def test_a_value_that_holds_itself_is_refused(self) -> None:
        """It has no end."""
        ring: list[Any] = []
        ring.append(ring)
        with pytest.raises(PayloadError, match="Circular reference"):
            PLAIN.dump(ring, what=WHAT)

    def test_a_value_that_is_too_deep_to_be_read_is_refused(self) -> None:
        """Writers of JSON go deeper than its readers: what could not be read again is not written."""
        assert PLAIN.load(PLAIN.dump(nested(200), what=WHAT)) == nested(200)
        with pytest.raises(PayloadError, match=f"{WHAT} would not be readable again: recursion limit"):
            PLAIN.dump(nested(201), what=WHAT)

    def test_what_is_no_json_is_not_read(self) -> None:
        """A row edited by hand is an error of its own kind."""
        with pytest.raises(PayloadError, match="A stored payload is not JSON"):
            PLAIN.load("{nonsense")


class TestText:
    @pytest.mark.parametrize("text", ["\x00", "a\x00b", "\\\x00", "\\\\\x00", "\\u0000\x00"])
    def test_a_nul_is_refused(self, text: str) -> None:
        """PostgreSQL would reject the whole row, at the worst moment."""
        for value in ({"a": text}, {text: 1}, Text(text=text)):
            with pytest.raises(PayloadError, match=f"{WHAT} holds a NUL character, which PostgreSQL rejects"):
                PLAIN.dump(value, what=WHAT)

    @pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "u0000", "\\\\\\u0000", "\x01"])
    def test_what_only_looks_like_a_nul_is_stored(self, text: str) -> None:
        """An escaped backslash before ``u0000`` is text."""
        assert PLAIN.load(PLAIN.dump({"a": text}, what=WHAT)) == {"a": text}

    def test_a_lone_surrogate_is_refused(self) -> None:
        """It is half a character, which no database takes."""
        for value in ({"a": "\ud800"}, {"\udfff": 1}, Text.model_construct(text="\ud800")):
            with pytest.raises(PayloadError, match="holds a lone surrogate"):
                PLAIN.dump(value, what=WHAT)

    def test_the_limit_counts_bytes(self) -> None:
        """The limit itself is allowed; the message tells the size, the limit and what to do."""
        small = Payloads(max_bytes=10)

        assert small.load(small.dump("é" * 4, what=WHAT)) == "éééé"
        with pytest.raises(PayloadError, match=f"{WHAT} takes 12 bytes, and the limit is 10. Store a reference"):
            small.dump("é" * 5, what=WHAT)


class TestCodec:
    def test_what_is_stored_is_a_json_string_of_the_encoded_text(self) -> None:
        """The column stays JSON, and only the codec can tell what it says."""
        payloads = Payloads(codec=Reversed())
        stored = payloads.dump({"card": "4711"}, what=WHAT)

        assert json.loads(stored) == '}"1174":"drac"{'
        assert payloads.load(stored) == {"card": "4711"}

    def test_models_pass_through_it(self) -> None:
        """A model is encoded and decoded like any payload."""
        payloads = Payloads(codec=Reversed())

        assert payloads.load_model(Rich, payloads.dump(Rich(), what=WHAT)) == Rich()

    def test_what_was_stored_without_it_can_still_be_read(self) -> None:
        """Sagas in flight survive the day on which encryption is switched on."""
        assert Payloads(codec=Reversed()).load(PLAIN.dump({"a": 1}, what=WHAT)) == {"a": 1}

    def test_a_codec_that_fails_is_a_payload_error(self) -> None:
        """Only its class is in the message, and it is no cause, for its own text may quote the payload."""
        payloads = Payloads(codec=Broken())

        with pytest.raises(
            PayloadError, match=f"^{WHAT} could not be encoded by Broken: it raised LookupError.$"
        ) as one:
            payloads.dump({"a": 1}, what=WHAT)
        assert one.value.__cause__ is None
        assert one.value.__context__ is None
        with pytest.raises(PayloadError, match="Broken could not decode a stored payload: it raised LookupError"):
            payloads.load('"x"')
        with pytest.raises(PayloadError, match="Broken could not decode a stored payload"):
            payloads.load_model(Text, "{nonsense")

    def test_the_encoded_text_is_checked_as_well(self) -> None:
        """A codec may make a payload larger, or unfit for the database."""

        class Doubling(Reversed):
            def encode(self, text: str) -> str:
                return text * 2

        class Spoiling(Reversed):
            def encode(self, text: str) -> str:
                return text + "\x00"

        with pytest.raises(PayloadError, match=f"{WHAT}, encoded, takes 12 bytes, and the limit is 10"):
            Payloads(max_bytes=10, codec=Doubling()).dump([1, 2], what=WHAT)
        with pytest.raises(PayloadError, match=f"{WHAT}, encoded, holds a NUL"):
            Payloads(codec=Spoiling()).dump([1], what=WHAT)


class TestCleanText:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("plain é \U0001f600", "plain é \U0001f600"),
            ("a\x00b", "a\\x00b"),
            ("a\ud800b", "a\\ud800b"),
            ("x" * 20, "x" * 20),
            ("x" * 21, "x" * 19 + "…"),
            ("\x00" * 20, "\\x00" * 4 + "\\x0" + "…"),
        ],
    )
    def test_any_text_becomes_one_that_any_database_takes(self, text: str, expected: str) -> None:
        """What a database rejects is escaped, and what is too long is cut after that."""
        assert clean_text(text, 20) == expected
