"""A payload is exact or refused: it reads back as what it was, of the same class and equal field by field."""

# ruff: noqa: DTZ001 - dates without a zone are payloads, too

from __future__ import annotations

import enum
import io
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from ipaddress import IPv4Network
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FutureDatetime,
    PastDate,
    PastDatetime,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from saga_orchestrator.definition.comparison import find_difference
from saga_orchestrator.definition.fidelity import is_exact, plan_of
from saga_orchestrator.definition.io import Payloads
from saga_orchestrator.definition.parts import SagaInput
from saga_orchestrator.definition.readers import asks_clock, can_ignore_clock, find_twins, reader_of
from saga_orchestrator.definition.secret_fields import find_secrets
from saga_orchestrator.errors import PayloadError

PLAIN = Payloads()
WHAT = "The output of step 'charge'"


class Turned:
    """A codec whose text nobody reads by chance."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, encoded: str) -> str:
        return encoded[::-1]


SEALED = Payloads(codec=Turned())


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    PAID = "paid"


class Line(BaseModel):
    item: str
    price: Decimal


class Gift(Line):
    note: str = ""


class Tree(BaseModel):
    name: str = ""
    children: list[Tree] = []
    parent: Tree | None = None


@dataclass
class Point:
    x: int


@pydantic_dataclass
class Partial:
    hidden: int = Field(1, exclude=True)


@pydantic_dataclass(config=ConfigDict(extra="allow"))
class OpenPoint:
    x: int


class Money:
    """An object of an author's own, whose equality looks at the amount alone."""

    def __init__(self, amount: int, currency: str = "EUR") -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.amount == other.amount

    def __hash__(self) -> int:
        return self.amount


class SlottedMoney(Money):
    __slots__ = ("note",)


class Code(str):
    """A text whose equality does not look at the case."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Labels(list[str]):
    owner = ""


def in_lower_case(code: Any) -> str:
    return str.lower(code)


OwnMoney = Annotated[
    Any,
    PlainSerializer(lambda money: money.amount),
    BeforeValidator(lambda value: Money(getattr(value, "amount", value))),
]
OwnCode = Annotated[Any, PlainSerializer(in_lower_case), BeforeValidator(Code)]
OwnLabels = Annotated[Any, PlainSerializer(list), BeforeValidator(Labels)]


def dump(value: Any) -> str:
    return PLAIN.dump(value, what=WHAT)


def refuse(value: Any, match: str = "would not read back") -> str:
    with pytest.raises(PayloadError, match=match) as refused:
        dump(value)
    return str(refused.value)


def read_again(value: BaseModel) -> BaseModel:
    return PLAIN.load_model(type(value), dump(value))


def by_list(values: dict[str, list[int]]) -> defaultdict[str, list[int]]:
    return defaultdict(list, values)


def labelled(words: list[str], owner: str) -> Labels:
    found = Labels(words)
    if owner:
        found.owner = owner
    return found


# --- models of every kind --------------------------------------------------------------------------------------------

offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
moments = st.datetimes(timezones=st.none() | offsets)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, texts),
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, moments),
    (time, st.times(timezones=st.none() | offsets)),
    (timedelta, st.timedeltas()),
    (bytes, st.binary(max_size=4)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Literal[1, True], st.sampled_from([1, True])),
    (str | int, texts | st.integers()),
    (int | float | None, st.integers() | st.floats() | st.none()),
    (Decimal | str, st.decimals(allow_nan=False, allow_infinity=False) | texts),
    (datetime | date | str, moments | st.dates() | texts),
    (Any, st.recursive(st.none() | st.integers() | st.floats() | texts | moments, st.lists, max_leaves=4)),
    (Line, st.builds(Line, item=texts, price=st.just(Decimal("1.10")))),
    (
        Line | Gift,
        st.builds(Line, item=texts, price=st.just(Decimal(1))) | st.builds(Gift, item=texts, price=st.just(1)),
    ),
    (Point, st.builds(Point, st.integers())),
    (Annotated[int, Field(gt=0)], st.integers(1)),
    (Annotated[str, Field(min_length=1)], texts.filter(len)),
    (defaultdict[str, list[int]], st.dictionaries(texts, st.lists(st.integers(), max_size=2), max_size=2).map(by_list)),
    (defaultdict[str, int], st.builds(defaultdict, st.sampled_from([int, None, lambda: 7]))),
    (deque[int], st.builds(deque, st.lists(st.integers() | st.booleans(), max_size=3), st.none() | st.integers(3, 4))),
    (OrderedDict[str, int], st.dictionaries(texts, st.integers(), max_size=3).map(OrderedDict)),
    (Counter[str], st.lists(texts, max_size=3).map(Counter)),
    (OwnMoney, st.builds(Money, st.integers(), st.sampled_from(["EUR", "USD"]))),
    (OwnCode, texts.map(Code)),
    (OwnLabels, st.builds(labelled, st.lists(texts, max_size=2), st.sampled_from(["", "ann"]))),
    (OpenPoint, st.builds(OpenPoint, x=st.integers()) | st.builds(OpenPoint, x=st.integers(), y=st.integers())),
    (FutureDatetime, moments),
    (PastDatetime, moments),
    (PastDate, st.dates()),
]
_hashable = st.sampled_from(LEAVES[:8])


def wrapped(pair: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    kind, values = pair
    return st.sampled_from(
        [
            (kind, values),
            (kind | None, values | st.none()),
            (list[kind], st.lists(values, max_size=3)),
            (dict[str, kind], st.dictionaries(texts, values, max_size=3)),
            (dict[int, kind], st.dictionaries(st.integers(), values, max_size=3)),
            (tuple[kind, int], st.tuples(values, st.integers())),
            (tuple[kind, ...], st.lists(values, max_size=3).map(tuple)),
        ]
    )


kinds = st.sampled_from(LEAVES).flatmap(wrapped).flatmap(wrapped)
sets = _hashable.map(lambda pair: (frozenset[pair[0]], st.frozensets(pair[1], max_size=3)))  # type: ignore[name-defined]


@st.composite
def values_of_models(draw: st.DrawFn) -> BaseModel:
    """Return a value of a generated model, as it is validated or, unchecked, as it is constructed."""
    fields = draw(st.lists(kinds | sets, min_size=1, max_size=3))
    config = ConfigDict(ser_json_inf_nan=draw(st.sampled_from(["null", "strings"])))
    model: Any = create_model(
        "Generated", __config__=config, **{f"f{place}": (kind, ...) for place, (kind, _) in enumerate(fields)}
    )
    given_values = {f"f{place}": draw(values) for place, (_, values) in enumerate(fields)}
    if draw(st.booleans()):
        return model.model_construct(**given_values)  # type: ignore[no-any-return]
    try:
        return model.model_validate(given_values)  # type: ignore[no-any-return]
    except ValidationError:  # a moment on the wrong side of now
        return model.model_construct(**given_values)  # type: ignore[no-any-return]


@given(values_of_models())
def test_a_value_of_any_model_reads_back_as_it_was_or_is_refused(value: BaseModel) -> None:
    """There is no third way, whatever its fields are, and whether they were validated or not."""
    try:
        text = dump(value)
    except PayloadError:
        return
    assert find_difference(value, PLAIN.load_model(type(value), text)) is None


@given(values_of_models())
def test_the_promise_of_a_schema_is_kept(value: BaseModel) -> None:
    """Where the check says that a comparison is not needed, a comparison finds nothing."""
    check = plan_of(type(value)).check
    if check is None or not check(value):
        return
    try:
        text = value.__pydantic_serializer__.to_json(value, by_alias=False, round_trip=True)
    except ValueError:
        return
    assert find_difference(value, type(value).__pydantic_validator__.validate_json(text)) is None


class Usual(BaseModel):
    """What models of services have."""

    order_id: str
    amount: Decimal
    at: datetime
    count: int | None = None
    mark: str | int = 1
    mode: Literal["fast", "slow"] = "slow"
    colour: Colour = Colour.RED
    lines: list[Line] = []
    tags: frozenset[str] = frozenset()
    named: dict[str, Decimal | None] = {}
    tree: Tree | None = None


USUAL = Usual(order_id="1", amount=Decimal("1.10"), at=datetime(2026, 1, 1, tzinfo=UTC), tree=Tree(children=[Tree()]))


def test_the_schema_of_a_usual_model_promises_that_it_reads_back() -> None:
    """Nothing of it is read back when it is stored."""
    dump(USUAL)
    assert is_exact(USUAL)
    assert read_again(USUAL) == USUAL


@pytest.mark.parametrize(
    "changed",
    [
        {"order_id": Word.PAID},
        {"amount": 1},
        {"amount": Decimal("nan")},
        {"count": True},
        {"mark": None},
        {"mode": "never"},
        {"colour": "red"},
        {"lines": [Line(item="x", price=Decimal(1)), Gift(item="x", price=Decimal(1))]},
        {"lines": [Line.model_construct(item=1, price=Decimal(1))]},
        {"lines": ()},
        {"named": {1: None}},
        {"named": {"a": 1.0}},
        {"tree": Tree.model_construct(children=[Tree.model_construct(name=1)])},
    ],
)
def test_the_promise_holds_for_the_declared_classes_alone(changed: dict[str, Any]) -> None:
    """What was put into a field unchecked is compared, and refused."""
    dump(USUAL)
    value = USUAL.model_copy(update=changed)
    assert not is_exact(value)
    refuse(value)


# --- what is refused, and what is kept -------------------------------------------------------------------------------


class Cents(BaseModel):
    """Takes dollars, and keeps cents: read once more, it multiplies once more."""

    amount: int

    @field_validator("amount")
    @classmethod
    def in_cents(cls, value: int) -> int:
        return value * 100


class CentsOfModel(BaseModel):
    amount: int

    @model_validator(mode="before")
    @classmethod
    def in_cents(cls, facts: Any) -> Any:
        return {"amount": facts["amount"] * 100}


class Rounded(BaseModel):
    price: Annotated[Decimal, PlainSerializer(lambda value: f"{value:.1f}")]


class Shown(BaseModel):
    price: Decimal

    @field_serializer("price")
    def shown(self, value: Decimal) -> str:
        return f"{value} EUR"


class Flat(BaseModel):
    price: int = 0

    @model_serializer
    def flat(self) -> dict[str, Any]:
        return {}


class Told(BaseModel):
    count: int = 1

    def model_post_init(self, context: Any) -> None:
        self.count += 1


class Made(BaseModel):
    count: int = 1

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self.count += 1


class WithDefault(BaseModel):
    note: Annotated[str | None, PlainSerializer(lambda value: value or None)] = "standard"

    @field_validator("note", mode="before")
    @classmethod
    def standard(cls, value: Any) -> Any:
        return "standard" if value is None else value


class Sloppy(BaseModel):
    count: int = None  # type: ignore[assignment]


class Holder(BaseModel):
    line: Line | None = None
    lines: list[Line] = []
    value: Any = None
    facts: dict[str, Any] = {}
    keys: dict[int | str, int] = {}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Zoned(BaseModel):
    at: datetime | None = None
    hour: time | None = None


class Positive(BaseModel):
    amount: int = Field(1, gt=0)


class Private:
    def __init__(self) -> None:
        self.x = 1


class Cached(BaseModel):
    item: str
    _seen: int = 0

    @cached_property
    def length(self) -> int:
        return len(self.item)


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    items: list[T]


class Bare(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    value: Annotated[Private, PlainSerializer(lambda value: value.x), BeforeValidator(lambda value: value)]


class Odd(BaseModel):
    """Reads an object without equality."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    value: Annotated[Private, PlainSerializer(lambda value: value.x), BeforeValidator(lambda _: Private())]


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise LookupError("no")

    __hash__ = None  # type: ignore[assignment]


class Holding(BaseModel):
    value: Annotated[Any, PlainSerializer(lambda _: 1), BeforeValidator(lambda _: Unequal())]


class Collected(BaseModel):
    lists: defaultdict[str, list[int]] = defaultdict(list)
    queue: deque[int] = deque()
    ordered: OrderedDict[str, int] = OrderedDict()
    counts: Counter[str] = Counter()
    point: OpenPoint = OpenPoint(x=1)


class Sums(BaseModel):
    money: OwnMoney
    code: OwnCode
    labels: OwnLabels


def slotted() -> SlottedMoney:
    money = SlottedMoney(5)
    money.note = "gift"
    return money


def held(kind: Any, value: Any) -> BaseModel:
    return create_model("Held", value=(kind, ...)).model_construct(value=value)


OwnSlotted = Annotated[Any, PlainSerializer(lambda money: money.amount), BeforeValidator(SlottedMoney)]
OwnStream = Annotated[Any, PlainSerializer(lambda _: "x"), BeforeValidator(lambda _: io.BytesIO(b"x"))]


GAP = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
LOSSY: dict[str, BaseModel] = {
    "a field validator that is not idempotent": Cents(amount=5),
    "a model validator that is not idempotent": CentsOfModel(amount=5),
    "a serializer that rounds": Rounded(price=Decimal("1.25")),
    "a serializer that goes one way": Shown(price=Decimal(1)),
    "a model serializer that leaves a field out": Flat(price=5),
    "model_post_init": Told(),
    "an own __init__": Made(),
    "a None that has another default": WithDefault.model_construct(note=None),
    "a default that is no value": Sloppy(),
    "a subclass in a field": Holder(line=Gift(item="x", price=Decimal(1), note="!")),
    "a subclass without fields of its own in a list": Holder(lines=[Gift(item="x", price=Decimal(1))]),
    "a private type in Any": Holder(value=datetime(2026, 1, 1, tzinfo=UTC)),
    "a tuple in Any": Holder(value=(1, 2)),
    "a Decimal deep in Any": Holder(facts={"a": [{"b": Decimal(1)}]}),
    "a model in Any": Holder(value=Line(item="x", price=Decimal(1))),
    "a word of an enum in Any": Holder(value=Word.PAID),
    "a secret in Any": Holder(value=SecretStr("x")),
    "two keys with one text": Holder(keys={1: 1, "1": 2}),
    "a key that is no text in Any": Holder(facts={"a": {1: 2}}),
    "an extra field of a private type": Open(price=Decimal(1)),  # type: ignore[call-arg]
    "an offset with seconds": Zoned(at=datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))),
    "a zone that needs a date": Zoned(hour=time(8, tzinfo=ZoneInfo("Europe/Berlin"))),
    "a fold without a zone": Zoned(at=datetime(2026, 10, 25, 2, 30, fold=1)),
    "a field that is missing": Line.model_construct(item="x"),
    "a value that escaped its constraint": Positive.model_construct(amount=-5),
    "a text where a number is declared": Line.model_construct(item="x", price="1.10"),
    "a bool where a number is declared": Tree.model_construct(name=True),
    "an object that is read as nothing like it": Bare.model_construct(value=Private()),
    "a defaultdict with a factory of its own": Collected(lists=defaultdict(lambda: [7])),
    "a deque with a limit": Collected(queue=deque([1], maxlen=2)),
    "a deque with another class of items": Collected.model_construct(queue=deque([True])),
    "an OrderedDict where a dict is declared": Holder.model_construct(facts=OrderedDict(a=1)),
    "a Counter in Any": Holder(value=Counter("aab")),
    "extra fields of a dataclass": Collected(point=OpenPoint(x=1, y=2)),  # type: ignore[call-arg]
    "an own object with more than its equality looks at": held(OwnMoney, Money(5, "USD")),
    "an own object with slots": held(OwnSlotted, slotted()),
    "an own text whose equality looks at less": held(OwnCode, Code("ABC")),
    "an own list with an attribute": held(OwnLabels, labelled(["x"], "ann")),
    "an object of a library without equality": held(OwnStream, io.BytesIO(b"x")),
}


@pytest.mark.parametrize("what", LOSSY)
def test_what_reads_back_as_something_else_is_refused(what: str) -> None:
    """The error names the model, and shows no value."""
    value = LOSSY[what]
    said = refuse(value, "would not read back")
    assert type(value).__name__ in said


EXACT: dict[str, BaseModel] = {
    "serializers that keep this value": Rounded(price=Decimal("1.2")),
    "a time that exists twice, with its offset": Zoned(at=GAP),
    "a tree": Tree(name="a", children=[Tree(name="b", parent=Tree())]),
    "plain values in Any": Holder(value={"b": [1, 2.5, None, True, {"a": "ö"}]}, facts={"z": 1, "a": -0.0}),
    "a generic model": Page[Line](items=[Line(item="x", price=Decimal("1.0"))]),
    "extra fields": Open(price=1, more=[{}]),  # type: ignore[call-arg]
    "numbers with all their digits": Line(item="x", price=Decimal("1.10E+5")),
    "an object that is equal to nothing": Odd.model_construct(value=Private()),
    "a root": RootModel[list[int]]([1, 2]),
    "collections of declared classes": Collected(
        lists={"a": [1]}, queue=deque([1, 2]), ordered=OrderedDict(b=1, a=2), counts=Counter("aab")
    ),
    "own objects with all that they keep": Sums(money=Money(5), code=Code("abc"), labels=Labels(["x"])),
}


@pytest.mark.parametrize("what", EXACT)
def test_what_reads_back_as_it_was_is_kept(what: str) -> None:
    """Its class and its fields, an instant with its offset, and the order of keys."""
    assert find_difference(EXACT[what], read_again(EXACT[what])) is None


def test_private_attributes_and_cached_properties_are_not_kept() -> None:
    """Nor do they stand in the way."""
    value = Cached(item="abc")
    value._seen = 5
    assert value.length == 3
    read = read_again(value)
    assert isinstance(read, Cached)
    assert (read.item, read._seen) == ("abc", 0)


def test_a_stand_in_for_datetime_says_itself_what_it_is() -> None:
    """Test tools put a class of their own in the place of datetime; what it takes for one of its own is one."""

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, datetime)

    class Frozen(datetime, metaclass=Meta):
        pass

    class Other(datetime):
        pass

    assert find_difference(Frozen(2026, 1, 1), datetime(2026, 1, 1)) is None
    assert find_difference(Other(2026, 1, 1), datetime(2026, 1, 1)) is not None
    assert find_difference(date(2026, 1, 1), datetime(2026, 1, 1)) is not None
    assert find_difference(datetime(2026, 1, 1), date(2026, 1, 1)) is not None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([1], [1, 1]),
        ({"a": 1}, {"a": 1, "b": 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1}, {2}),
        ({1}, {1, 2}),
        (0.0, -0.0),
        (Decimal("1.0"), Decimal("1.00")),
        (Point(1), Point(2)),
        (1, True),
        (Colour.RED, Colour.BLUE),
        (UUID(int=1), UUID(int=2)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        (time(1), time(1, tzinfo=UTC)),
    ],
)
def test_values_that_only_look_alike_differ(written: Any, read: Any) -> None:
    assert find_difference(written, read)
    assert find_difference(written, written) is None


def test_nan_is_nan() -> None:
    """Of floats, of decimals, and in sets."""
    for value in (float("nan"), Decimal("nan"), frozenset({float("nan")}), {"a": [float("nan")]}):
        assert find_difference(value, value) is None
    assert find_difference({float("nan")}, {float("nan")}) is None


def test_a_model_is_read_back_as_what_it_is_declared_to_be() -> None:
    """A subclass would lose its own fields."""
    with pytest.raises(PayloadError, match=r"is of class Gift, and would read back as Line\. Return a Line"):
        PLAIN.dump(Gift(item="x", price=Decimal(1)), what=WHAT, model=Line)


def test_an_error_shows_no_value() -> None:
    """Not the one that does not fit, nor the keys of a dict."""
    said = refuse(Holder(facts={"4111-1111": {"cvv-999": Decimal("123.45")}}))
    for secret in ("4111", "cvv", "123"):
        assert secret not in said


def test_a_model_that_is_not_complete_yet_is_compared() -> None:
    """It is completed where it can be."""

    class Early(BaseModel):
        later: Later | None = None

    assert plan_of(Early).check is None

    class Later(BaseModel):
        x: int = 0

    Early.model_rebuild()
    assert read_again(Early(later=Later())) == Early(later=Later())


def test_a_field_that_is_missing_is_not_mistaken_for_another() -> None:
    """A cached property of the same class stands in the same dict."""
    assert read_again(Cached(item="abc")) == Cached(item="abc")
    value = Cached.model_construct()
    value.__dict__["length"] = "3"
    refuse(value, "would not read back as the Cached that it is: item: Field required")


def test_an_equality_that_raises_is_a_payload_error() -> None:
    """The step that has returned such a value is in doubt, and does not stop its saga."""
    assert "LookupError" in refuse(Holding.model_construct(value=Unequal()))


def test_a_schema_of_an_unknown_form_promises_nothing() -> None:
    """Its values are compared."""

    class Wrapped(BaseModel):
        x: int = 0

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return {"type": "nullable", "schema": handler(source)}

    class Strange(BaseModel):
        x: int = 0

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return {"type": "lax-or-strict", "lax_schema": handler(source), "strict_schema": handler(source)}

    for model in (Wrapped, Strange):
        assert read_again(model(x=1)) == model(x=1)


def test_a_validator_that_raises_what_it_likes_is_a_payload_error() -> None:
    class Moody(BaseModel):
        x: Annotated[int, AfterValidator(lambda value: {}[value])]

    assert "KeyError" in refuse(Moody.model_construct(x=5))


# --- flaws and secrets -----------------------------------------------------------------------------------------------


class LogIn(BaseModel):
    account: str
    key: SecretStr
    blob: SecretBytes = SecretBytes(b"b")
    day: Secret[date] = Secret[date](date(2026, 1, 1))
    more: list[SecretStr] = []
    named: dict[str, SecretStr] = {}


class Keys(BaseModel):
    log_in: LogIn
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    blob: bytes = b"b"


SECRETS = Keys(
    log_in=LogIn(account="a", key=SecretStr("k3y"), more=[SecretStr("m0re")], named={"n": SecretStr("n4me")})
)


def test_a_codec_keeps_secrets_in_full() -> None:
    """Beside everything else; what is stored shows none of them."""
    text = SEALED.dump(SECRETS, what=WHAT)
    read = SEALED.load_model(Keys, text)
    assert find_difference(SECRETS, read) is None
    assert read.log_in.key.get_secret_value() == "k3y"
    for secret in ("k3y", "m0re", "n4me"):
        assert secret not in text


def test_without_a_codec_secrets_are_refused() -> None:
    """With the field and what to do; in a model, in plain data, and in a model in plain data."""
    for value in (SECRETS, {"key": SecretStr("")}, [{"keys": SECRETS}], {"point": Point(SecretStr("x"))}):  # type: ignore[arg-type]
        said = refuse(value, "has a Secret.* in '.*', which is stored only where a codec encrypts it.*payload_codec")
        assert "k3y" not in said
    refuse({"login": [{"api_key": SecretStr("x")}]}, r"has a SecretStr in 'login\[\]\.api_key'")
    assert "4711" not in refuse({"4711": SecretStr("x")}, "has a SecretStr in")


def test_secrets_in_plain_data_are_kept_in_full_by_a_codec() -> None:
    value = {"key": SecretStr("k3y"), "keys": [SECRETS], "set": {SecretStr("s")}, "point": Point(1), "n": 1}
    read = SEALED.load(SEALED.dump(value, what=WHAT))
    assert (read["key"], read["keys"][0]["log_in"]["key"], read["set"]) == ("k3y", "k3y", ["s"])
    assert (read["point"], read["n"]) == ({"x": 1}, 1)
    assert SEALED.load(SEALED.dump(SecretStr("k3y"), what=WHAT)) == "k3y"


def test_a_secret_that_is_no_text_is_refused() -> None:
    """Bytes have no JSON."""
    value = LogIn(account="a", key=SecretStr("k"), blob=SecretBytes(b"\xff"))
    with pytest.raises(PayloadError, match="cannot be stored as JSON"):
        SEALED.dump(value, what=WHAT)


def test_a_secret_that_the_author_writes_in_full_is_no_secret() -> None:
    """So pydantic's own documentation does it."""

    class Plainly(BaseModel):
        key: SecretStr

        @field_serializer("key", when_used="json")
        def shown(self, value: SecretStr) -> str:
            return value.get_secret_value()

    value = Plainly(key=SecretStr("k"))
    assert plan_of(Plainly).secrets == ()
    assert read_again(value) == value


def test_flaws_and_secrets_are_found_wherever_they_are() -> None:
    """In fields, in lists, in unions, in models that hold themselves."""

    class Deep(BaseModel):
        me: Deep | None = None
        lines: list[Left | Keys] = []

    class Left(BaseModel):
        hidden: int = Field(1, exclude=True)
        once: Iterable[int] = ()

    Deep.model_rebuild()
    assert {path for path, _ in plan_of(Deep).flaws} == {"lines.hidden", "lines.once"}
    assert "lines.log_in.key" in plan_of(Deep).secrets
    assert plan_of(Tree).secrets == ()


# --- plain data ------------------------------------------------------------------------------------------------------

LOST: dict[str, Callable[[], Any]] = {
    "two keys with one text": lambda: {"a": [{1: "a", "1": "b"}]},
    "a key of None and its text": lambda: {None: 1, "None": 2},
    "an offset with seconds": lambda: {"at": datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))},
    "a model that does not read back": lambda: {"cents": (Cents(amount=1),)},
    "a secret as a key": lambda: {SecretStr("x"): 1},
    "a dataclass that leaves a field out": lambda: {"left": Partial(hidden=2)},
    "a dataclass with one": lambda: Point(Cents(amount=1)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", LOST)
def test_plain_data_of_which_something_would_be_lost_is_refused(what: str) -> None:
    refuse(LOST[what](), "would not read back|JSON writes alike|offset that JSON cannot say|secret as a key")


class Shelf(BaseModel):
    numbers: list[float] = []
    anything: Any = None
    maybe: int | list[str] = 0


class Grade(enum.Enum):
    FIRST = 1
    BEST = "best"


class Graded(BaseModel):
    grade: Grade = Grade.FIRST
    named: dict[Grade, int] = {}


def test_a_check_refuses_what_its_schema_does_not_promise() -> None:
    """Members of another class, and members that JSON does not have, are left to the comparison."""
    check = plan_of(Shelf).check
    assert check is None or not check(Shelf.model_construct(numbers=["x"], anything=None, maybe=0))
    for value in (Graded(), Graded(named={Grade.BEST: 1})):
        assert plan_of(Graded).check is None
        assert PLAIN.load_model(Graded, PLAIN.dump(value, what=WHAT)) == value


def test_members_of_another_class_are_not_promised() -> None:
    class Row(BaseModel):
        cells: list[float] = []
        more: Any = None

    check = plan_of(Row).check
    assert check is not None
    assert check(Row(cells=[1.5], more=[1.5]))
    assert not check(Row.model_construct(cells=["x"], more=None))
    assert not check(Row(more=[object()]))


def test_a_model_whose_fields_stand_in_another_order_is_checked_each_time() -> None:
    class Pair(BaseModel):
        a: int = 0
        b: str = ""

    value = Pair(a=1, b="x")
    a = value.__dict__.pop("a")
    value.__dict__["a"] = a
    check = plan_of(Pair).check
    assert check is not None
    assert check(value)
    assert check(value)


def test_secrets_are_found_in_keys_and_dataclasses() -> None:
    held = {SecretStr("k"): 1, "point": Point(SecretStr("x"))}  # type: ignore[arg-type]

    assert len(list(find_secrets(held))) == 2
    assert list(find_secrets(3)) == []
    assert list(find_secrets(Point)) == []


class Mixed(BaseModel):
    either: Literal["a", 1] = 1
    counts: dict[int, str] = {}


def test_what_a_schema_cannot_promise_is_compared() -> None:
    """Literals of two classes, and keys that are no text."""
    for model in (create_model("One", either=(Literal["a", 1], 1)), create_model("Two", counts=(dict[int, str], {}))):
        assert plan_of(model).check is None
    value = Mixed(either="a", counts={1: "x"})
    assert PLAIN.load_model(Mixed, PLAIN.dump(value, what=WHAT)) == value


def test_what_a_saga_inside_a_saga_is_given_is_plain_data() -> None:
    """It reads back as plain values of JSON, as initial data does; two keys that JSON writes alike are refused."""
    assert PLAIN.load(PLAIN.dump(SagaInput({"n": Decimal(1), "point": (1, 2)}), what=WHAT)) == {
        "n": "1",
        "point": [1, 2],
    }
    with pytest.raises(PayloadError, match="two keys that JSON writes alike"):
        PLAIN.dump(SagaInput({1: "a", "1": "b"}), what=WHAT)


def test_secrets_are_found_in_models_and_lists() -> None:
    log_in = LogIn(account="a", key=SecretStr("k3y"))

    assert [path for path, _ in find_secrets([log_in])] == ["[].key", "[].blob", "[].day"]


class Leaf(TypedDict):
    below: list[Leaf]


class Nested(BaseModel):
    leaf: Leaf = {"below": []}


class Loose(BaseModel):
    bag: dict = {}  # type: ignore[type-arg]


def test_a_type_that_holds_itself_and_is_no_model_is_compared() -> None:
    value = Nested(leaf={"below": [{"below": []}]})

    assert plan_of(Nested).check is None
    assert PLAIN.load_model(Nested, PLAIN.dump(value, what=WHAT)) == value


def test_a_bare_dict_is_compared() -> None:
    assert plan_of(Loose).check is None
    for bag in ({"a": [1, None, {"b": "c"}]}, {}):
        assert PLAIN.load_model(Loose, PLAIN.dump(Loose(bag=bag), what=WHAT)) == Loose(bag=bag)
    for lossy in ({1: "a"}, {"a": Decimal(1)}):
        with pytest.raises(PayloadError, match="would not read back as the Loose that it is"):
            PLAIN.dump(Loose(bag=lossy), what=WHAT)


class Sealed(enum.Enum):
    KEY = SecretStr("k3y")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (deque([1]), "holds a deque"),
        ((n for n in [1]), "holds a generator"),
        (map(str, [1]), "holds a map"),
        ({SecretStr("k3y"): 1}, "a secret as a key"),
        ({Sealed.KEY: 1}, "a secret as a key"),
        ({datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=1))): 1}, "an offset that JSON cannot say"),
    ],
)
def test_plain_data_in_other_containers_is_refused(value: Any, why: str) -> None:
    """Their members would be written without a look at them."""
    for payloads in (PLAIN, SEALED):
        with pytest.raises(PayloadError, match=why):
            payloads.dump({"q": value}, what=WHAT)


def test_networks_and_enums_in_plain_data_are_whole() -> None:
    value = {"net": IPv4Network("10.0.0.0/8"), "level": Level.LOW, "word": Word.PAID}

    assert PLAIN.load(PLAIN.dump(value, what=WHAT)) == {"net": "10.0.0.0/8", "level": 1, "word": "paid"}
    with pytest.raises(PayloadError, match="SecretStr"):
        PLAIN.dump({"key": Sealed.KEY}, what=WHAT)
    assert SEALED.load(SEALED.dump({"key": Sealed.KEY}, what=WHAT)) == {"key": "k3y"}


def test_a_union_of_what_json_tells_apart_is_promised() -> None:
    model = create_model("Either", either=(int | str | None, 1))

    check = plan_of(model).check
    assert check is not None
    assert check(model(either="a"))
    assert not check(model.model_construct(either=1.5))


def test_literals_and_enums_of_one_class_are_promised() -> None:
    model = create_model("Labels", word=(Literal["a", "b"], "a"), level=(Level, Level.LOW), colour=(Colour, Colour.RED))

    check = plan_of(model).check
    assert check is not None
    assert check(model(word="b"))
    assert not check(model.model_construct(word="c"))
    assert not check(model.model_construct(colour="red"))


# --- the clock, and aliases that are names ---------------------------------------------------------------------------


class Visit(BaseModel):
    at: FutureDatetime
    booked: PastDatetime | None = None
    next: list[Visit] = []


class Journey(BaseModel):
    visits: tuple[Visit, Visit]
    born: PastDate = date(2000, 1, 1)


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


def test_a_moment_that_was_in_the_future_is_read_when_it_is_past() -> None:
    """An undo may come years later; the promise was checked when the value was made."""
    visit = Visit.model_construct(at=LONG_AGO, booked=datetime(2999, 1, 1, tzinfo=UTC), next=[])
    outer = Visit.model_construct(at=LONG_AGO, booked=None, next=[visit])
    journey = Journey.model_construct(visits=(visit, outer), born=date(2999, 1, 1))

    assert find_difference(journey, read_again(journey)) is None
    with pytest.raises(ValidationError):
        Visit(at=LONG_AGO)


def test_a_model_without_a_clock_is_read_by_its_own_validator() -> None:
    assert (asks_clock(Line), asks_clock(Journey)) == (False, True)
    assert reader_of(Line) is Line.__pydantic_validator__
    assert can_ignore_clock(Line)
    assert can_ignore_clock(Journey)


def test_a_pydantic_that_always_looks_at_the_clock_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Due(BaseModel):
        at: FutureDatetime

    def make(schema: Any) -> None: ...

    monkeypatch.setattr("saga_orchestrator.definition.readers.SchemaValidator", make)

    assert not can_ignore_clock(Due)


def test_a_model_that_is_not_complete_is_read_by_what_it_has() -> None:
    class Waiting(BaseModel):
        later: Missing | None = None  # type: ignore[name-defined]  # noqa: F821

    assert reader_of(Waiting) is Waiting.__pydantic_validator__


class Swapped(BaseModel):
    payer: str = Field(alias="payee")
    payee: str = Field(alias="payer")


class Own(BaseModel):
    payer: str = Field(alias="payer")
    payee: str = Field(validation_alias=AliasChoices("to", AliasPath("ends", 0)))


class Chosen(BaseModel):
    payer: str = Field(validation_alias=AliasChoices("from", AliasPath("payee", 0)))
    payee: str


class Pathed(BaseModel):
    payer: str = Field(validation_alias=AliasPath("payee", 0))
    payee: list[str]


@pydantic_dataclass
class SwappedPoint:
    x: int = Field(validation_alias="y")
    y: int = 0


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (Swapped, "payer"),
        (Chosen, "payer"),
        (Pathed, "payer"),
        (SwappedPoint, "x"),
        (RootModel[list[Swapped]], "payer"),
        (Own, None),
        (Line, None),
    ],
)
def test_a_field_whose_alias_is_the_name_of_another_is_found(model: Any, field: str | None) -> None:
    assert find_twins(model) == field


def test_a_model_with_such_aliases_is_stored_by_its_names() -> None:
    value = Swapped(payee="ann", payer="bob")

    assert read_again(value) == value


# --- one text for equal sets -----------------------------------------------------------------------------------------


ONE, OTHER = frozenset([0, 8]), frozenset([8, 0])
"""Equal sets in two orders: the hashes of these numbers collide."""


class Basket(BaseModel):
    model_config = ConfigDict(extra="allow")
    tags: frozenset[int] = frozenset()
    pairs: list[tuple[int, frozenset[int]]] = []
    joined: Annotated[
        frozenset[int],
        PlainSerializer(lambda items: "+".join(map(str, sorted(items)))),
        BeforeValidator(lambda said: said.split("+") if isinstance(said, str) else said),
    ] = frozenset({1})


@dataclass
class Bag:
    tags: frozenset[int]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ONE, OTHER),
        ({"a": [ONE]}, {"a": [OTHER]}),
        ({"a": frozenset({ONE, frozenset()})}, {"a": frozenset({OTHER, frozenset()})}),
        (Bag(ONE), Bag(OTHER)),
        (Basket(tags=ONE), Basket(tags=OTHER)),
        (RootModel[frozenset[int]](ONE), RootModel[frozenset[int]](OTHER)),
        (Basket(pairs=[(1, ONE)], more={"x": 1}), Basket(pairs=[(1, OTHER)], more={"x": 1})),  # type: ignore[call-arg]
        (Basket(joined=ONE, tags=ONE), Basket(joined=OTHER, tags=OTHER)),
    ],
)
def test_equal_sets_have_one_text_in_all_processes(one: Any, other: Any) -> None:
    assert list(ONE) != list(OTHER)
    for payloads in (PLAIN, SEALED):
        texts_of = [payloads.dump(value, what=WHAT, is_compared=True) for value in (one, other)]
        assert texts_of[0] == texts_of[1]


@given(values_of_models())
def test_an_order_of_sets_changes_no_value(value: BaseModel) -> None:
    try:
        text = PLAIN.dump(value, what=WHAT, is_compared=True)
    except PayloadError:
        return
    assert find_difference(value, PLAIN.load_model(type(value), text)) is None
