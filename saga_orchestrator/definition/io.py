"""Payloads: how inputs, outputs and initial data become stored text, and come back as what they were.

What is stored is JSON, never pickle: it can be read without the code that wrote it, and reading it runs nothing.
A value is refused *before* it is written if it could not be read back, or if the database would reject it: a payload
that poisons its row would be found at the worst moment, when the saga has to be undone.

A model is stored by field name, whatever its aliases are, and without computed fields. It reads back as what it was: of
the same class, and equal field by field. A value that would read back as anything else is refused. Private attributes
of a model are not stored, nor is which of its fields were set.

Plain data of dicts, lists and scalars reads back as plain values of JSON: a Decimal or a date as its text, a tuple as a
list. What such a text cannot say is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, time
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json
from pydantic_core.core_schema import ErrorType

from ..errors import PayloadError
from .comparison import find_difference
from .fidelity import is_exact, is_model, is_zone_kept, names_of, plan_of
from .plain_errors import name_type
from .readers import reader_of
from .secret_fields import SECRET, find_secrets, write_in_full
from .set_order import sort_sets

ModelT = TypeVar("ModelT", bound=BaseModel)
ErrorT = TypeVar("ErrorT", bound=Exception)

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_WHOLE = (str, bytes, bytearray, IPv4Network, IPv6Network)
"""Values that can be iterated over, and are stored as one."""
_SCALARS = frozenset({str, int, bool, float, type(None)})
_MAY_NEST_TOO_DEEP = 400
"""A text of this many bytes or fewer cannot hold more than 200 levels, which is where the reader of JSON gives up."""


class PayloadCodec(Protocol):
    """Encodes payloads on their way to the database, for example to encrypt them."""

    def encode(self, text: str, /) -> str:
        """Return what is stored instead of this JSON text."""

    def decode(self, text: str, /) -> str:
        """Return the JSON text that `encode` was given."""


@dataclass(frozen=True, slots=True)
class Payloads:
    """Writes and reads payloads.

    Args:
        max_bytes: The most that one payload may take, in bytes of UTF-8, before and after encoding.
        codec: Applied to the JSON text; what is stored then is a JSON string of what it returned. Payloads that were
            stored before there was a codec can still be read, as long as they are not plain strings.
    """

    max_bytes: int = 1 << 20
    codec: PayloadCodec | None = None

    def dump(self, value: Any, *, what: str, model: type[BaseModel] | None = None, is_compared: bool = False) -> str:
        """Return the text to store for a model, a dataclass, or plain data of dicts, lists and scalars.

        Args:
            what: What the value is, for the message of an error.
            model: What the value will be read back as; by default its own class.
            is_compared: Other processes compare the text with that of an equal value, so sets are written in order.

        Raises:
            PayloadError: It is not JSON-able, would read back as something else, is too large, or holds a NUL, a lone
                surrogate, or a secret that no codec encrypts.
        """
        if model is not None and type(value) is not model:
            raise PayloadError(
                f"{what} is of class {type(value).__name__}, and would read back as {model.__name__}. "
                f"Return a {model.__name__}."
            )
        try:
            if is_exact(value):
                text = self._checked(_to_json_of_model(value, what), what)
            else:
                text = self._write_model(value, what) if is_model(value) else self._write_plain(value, what)
        except PayloadError as error:
            if self.codec is None:
                raise
            refused = PayloadError(getattr(error, "unquoted", str(error)))
        else:
            if is_compared:
                text = sort_sets(value, text)
            return text if self.codec is None else self._encoded(text, what, self.codec)
        raise refused  # without a cause or a context, which would show the value

    def load(self, text: str) -> Any:
        """Return a stored payload as plain JSON values.

        Raises:
            PayloadError: It cannot be decoded, or is not JSON.
        """
        try:
            return from_json(self._plain(text), cache_strings="keys")
        except ValueError as error:
            raise PayloadError(f"A stored payload is not JSON: {error}.") from error

    def load_model(self, model: type[ModelT], text: str) -> ModelT:
        """Return a stored payload as the model that it was.

        Raises:
            PayloadError: It cannot be decoded, or does not fit the model.
        """
        return self._fit(model, self._plain(text))

    def load_item(self, model: type[ModelT], text: str, index: int) -> ModelT:
        """Return one item of a stored list as the model that it was.

        Raises:
            PayloadError: As of `load_model`.
        """
        item = to_json(from_json(self._plain(text))[index], inf_nan_mode="constants").decode()
        return self._fit(model, item)

    def load_list(self, model: type[ModelT], texts: Iterable[str | None]) -> ModelT:
        """Return several stored payloads as one model of a list, with None where there is none.

        Raises:
            PayloadError: As of `load_model`.
        """
        items = ",".join("null" if text is None else self._plain(text) for text in texts)
        return self._fit(model, f"[{items}]")

    def why(self, error: ValidationError, model: type) -> str:
        """Return what did not fit and why; with a codec, without a word of the author's validators."""
        return reasons(error, model, hides=self.codec is not None)

    def link(self, made: ErrorT, cause: Exception) -> ErrorT:
        """Return an error as raised from another; with a codec, from none, for that one may show values.

        Raise it where no error is handled, so that Python adds no context.
        """
        if self.codec is None:
            made.__cause__ = cause
        return made

    def _fit(self, model: type[ModelT], text: str) -> ModelT:
        try:
            return _read(model, text)
        except ValidationError as error:
            misfit = PayloadError(f"A stored payload does not fit {model.__name__}: {self.why(error, model)}.")
            misfit = self.link(misfit, error)
        raise misfit

    def _checked(self, raw: bytes, what: str) -> str:
        if len(raw) > self.max_bytes:
            raise PayloadError(
                f"{what} takes {len(raw)} bytes, and the limit is {self.max_bytes}. "
                "Store a reference to it, or raise max_payload_bytes."
            )
        text = raw.decode()
        if "\\u0000" in text and _NUL.search(text):
            raise PayloadError(f"{what} holds a NUL character, which PostgreSQL rejects. Remove it, or send bytes.")
        if len(raw) > _MAY_NEST_TOO_DEEP or "NaN" in text or "Infinity" in text:
            _check_readable(raw, what)
        return text

    def _write_model(self, value: BaseModel, what: str) -> str:
        """Return the JSON of a model, which reads back as it is."""
        plan = plan_of(type(value))
        if is_exact(value):
            return self._checked(_to_json(value, what), what)
        if plan.is_plain:
            return self._write_plain(value.root, what)  # type: ignore[attr-defined]
        raw = self._in_full(value, what) if plan.secrets else _to_json(value, what)
        text = self._checked(raw, what)
        check_fidelity(value, text, what)
        return text

    def _write_plain(self, value: Any, what: str) -> str:
        """Return the JSON of plain data, of which nothing is lost."""
        raw = _to_json(value, what)  # what holds itself is refused here, before anybody walks through it
        if type(value) not in _SCALARS and self._check_member(value, what):
            raw = self._in_full(value, what)
        return self._checked(raw, what)

    def _check_member(self, value: Any, what: str) -> bool:
        """Refuse plain data of which something would be lost; return whether it has secrets."""
        if is_model(value):
            self._write_model(value, what)
            return bool(plan_of(type(value)).secrets)
        if isinstance(value, datetime | time) and not is_zone_kept(value):
            raise PayloadError(f"{what} holds a {type(value).__name__} with an offset that JSON cannot say. Use UTC.")
        members: Iterable[Any] = ()
        if isinstance(value, Mapping):
            _check_keys(value, what)
            members = (*value, *value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            members = value
        elif is_dataclass(value):
            members = [getattr(value, field.name) for field in fields(value)]
        elif isinstance(value, Enum):
            members = [value.value]
        elif isinstance(value, Iterable) and not isinstance(value, _WHOLE):
            raise PayloadError(f"{what} holds a {type(value).__name__}, which is not stored as it is. Make it a list.")
        found = [self._check_member(member, what) for member in members if type(member) not in _SCALARS]
        if hasattr(type(value), "__pydantic_validator__") and not any(found):
            check_fidelity(value, _to_json(value, what).decode(), what)
        return isinstance(value, SECRET) or any(found)

    def _in_full(self, value: Any, what: str) -> bytes:
        """Return the JSON of a value with its secrets in full; nothing of it is stored unless a codec encodes it."""
        for path, secret in find_secrets(value) if self.codec is None else ():
            raise PayloadError(
                f"{what} has a {type(secret).__name__} in '{path}', which is stored only where a codec encrypts it. "
                "Give the orchestrator a payload_codec, or keep the secret elsewhere and store a reference to it."
            )
        try:
            return write_in_full(value)
        except Exception as error:
            raise _unwritable(error, what) from error

    def _encoded(self, text: str, what: str, codec: PayloadCodec) -> str:
        try:
            encoded = codec.encode(text)
        except Exception as error:  # noqa: BLE001 - the author's code
            raised = name_type(error)
        else:
            return self._store_encoded(encoded, what)
        raise PayloadError(f"{what} could not be encoded by {name_type(codec)}: it raised {raised}.")

    def _store_encoded(self, encoded: str, what: str) -> str:
        return self._checked(_to_json(encoded, f"{what}, encoded,"), f"{what}, encoded,")

    def _plain(self, text: str) -> str:
        if self.codec is None:
            return text
        try:
            stored = from_json(text, cache_strings=False)
            return self.codec.decode(stored) if isinstance(stored, str) else text
        except Exception as error:  # noqa: BLE001 - the author's code
            raised = name_type(error)
        raise PayloadError(f"{name_type(self.codec)} could not decode a stored payload: it raised {raised}.")


def clean_text(text: str, limit: int) -> str:
    r"""Return a text that any database takes: NUL and lone surrogates escaped, cut to `limit` characters.

    >>> clean_text("no \x00 here", 100)
    'no \\x00 here'
    """
    cleaned = text[: limit + 1].encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
    return cleaned if len(cleaned) <= limit else f"{cleaned[: limit - 1]}…"


def check_fidelity(value: Any, text: str, what: str) -> None:
    """Refuse a model, or a dataclass of Pydantic's, whose text reads back as anything else.

    Raises:
        PayloadError: It does, or it does not read back at all.
    """
    if found := _find_loss(value, text):
        name = type(value).__name__
        if "null" in text and _holds_non_finite(value):
            raise PayloadError(
                f"{what} holds a float that is infinite or not a number, which {name} writes as null. "
                "Set ser_json_inf_nan='strings' in its model_config."
            )
        advice = "Declare the class of each field, and use validators that accept what serializers write."
        shown, unquoted = (f"{what} would not read back as the {name} that it is: {each}. {advice}" for each in found)
        raise _UnwritableError(shown, unquoted)


def _find_loss(value: Any, text: str) -> tuple[str, str] | None:
    """Return what a value would lose, and the same without a word of the author's validators."""
    try:
        read = _read(type(value), text)
        found = find_difference(value, read)
    except ValidationError as error:
        return reasons(error, type(value)), reasons(error, type(value), hides=True)
    except Exception as error:  # noqa: BLE001 - a validator of the author's, or an __eq__, may raise anything
        found = f"reading or comparing it raised {name_type(error)}"
    return None if found is None else (found, found)


def _holds_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if is_model(value):
        return any(map(_holds_non_finite, value.__dict__.values()))
    if isinstance(value, Mapping):
        return any(map(_holds_non_finite, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_holds_non_finite, value))


def _check_keys(value: Mapping[Any, Any], what: str) -> None:
    """Refuse two keys that JSON writes alike, as 1 and "1", and one that it writes as asterisks."""
    if {str} >= set(map(type, value)):
        return
    if any(isinstance(key.value if isinstance(key, Enum) else key, SECRET) for key in value):
        raise PayloadError(f"{what} has a dict with a secret as a key, which would be lost. Make it a value.")
    if len({to_json({key: None}) for key in value}) < len(value):
        raise PayloadError(f"{what} has a dict with two keys that JSON writes alike, such as 1 and '1'. Rename one.")


def _to_json(value: Any, what: str) -> bytes:
    if is_model(value):
        return _to_json_of_model(value, what)
    try:
        return to_json(value, by_alias=False, round_trip=True, bytes_mode="base64", inf_nan_mode="strings")
    except Exception as error:
        raise _unwritable(error, what) from error


def _to_json_of_model(value: BaseModel, what: str) -> bytes:
    try:
        return value.__pydantic_serializer__.to_json(value, by_alias=False, round_trip=True, warnings=False)
    except Exception as error:
        raise _unwritable(error, what) from error


class _UnwritableError(PayloadError):
    """A value cannot be written. `unquoted`: the message without that of what raised, which may quote the value."""

    def __init__(self, shown: str, unquoted: str) -> None:
        super().__init__(shown)
        self.unquoted = unquoted


def _unwritable(error: Exception, what: str) -> PayloadError:
    try:
        said = str.__str__(str(error))
    except Exception:  # noqa: BLE001 - the author's code
        said = name_type(error)
    shown, unquoted = (
        f"{what} cannot be stored as JSON: {each}. {_advice(said)}" for each in (said, f"it raised {name_type(error)}")
    )
    return _UnwritableError(shown, unquoted)


def _advice(problem: str) -> str:
    if "surrogates not allowed" in problem:
        return "A string holds a lone surrogate (half of a UTF-16 pair), which is no valid text; remove it."
    if "invalid utf-8" in problem:
        return "A bytes field is not UTF-8: set ser_json_bytes='base64' and val_json_bytes='base64' in model_config."
    return "Give it a Pydantic model, or plain data."


def _check_readable(raw: bytes, what: str) -> None:
    try:
        from_json(raw, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise PayloadError(f"{what} would not be readable again: {error}.") from error


def _read(model: type[ModelT], text: str) -> ModelT:
    found: ModelT = reader_of(model).validate_json(text, by_alias=False, by_name=True)
    return found


def reasons(error: ValidationError, model: type | None = None, *, hides: bool = False) -> str:
    """Return what did not fit and why, without the values: errors are stored and logged, payloads may be secret.

    Args:
        model: What did not fit; then keys of dicts, which are values, are not shown either.
        hides: Whether of an error that a validator of the author's raised only its kind is shown.
    """
    known = None if model is None else names_of(model)
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{_place(each, known)}: {_said(each, hides)}" for each in found)


def _said(found: ErrorDetails, hides: bool) -> str:
    kind = found["type"]
    return kind if hides and kind not in _PYDANTICS else _QUOTING.get(kind, found["msg"])


def _place(found: ErrorDetails, known: frozenset[str] | None) -> str:
    """Return where something did not fit. A field that nobody declares has a name all the same."""
    parts = found["loc"]
    shown = [part if known is None or part in known or isinstance(part, int) else "[key]" for part in parts]
    if found["type"] == "extra_forbidden":
        shown[-1:] = parts[-1:]
    return ".".join(map(str, shown)) or "it"


_QUOTING = {
    "union_tag_invalid": "Input has none of the expected tags",
    "uuid_parsing": "Input should be a valid UUID",
    "url_parsing": "Input should be a valid URL",
    "bytes_invalid_encoding": "Data should be validly encoded",
    "get_attribute_error": "Error extracting an attribute",
}
"""What is said in place of the messages that quote a value."""
_PYDANTICS = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}
"""The kinds of errors whose text is Pydantic's."""
