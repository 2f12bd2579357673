"""Payloads: how inputs, outputs and initial data become stored text, and come back as what they were.

What is stored is JSON, never pickle: it can be read without the code that wrote it, and reading it runs nothing.
A value is refused *before* it is written if it could not be read back, or if the database would reject it: a payload
that poisons its row would be found at the worst moment, when the saga has to be undone.

Models are stored by field name, whatever their aliases, and without computed fields, so that every model reads back
what it wrote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from ..errors import PayloadError

ModelT = TypeVar("ModelT", bound=BaseModel)

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
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

    def dump(self, value: Any, *, what: str) -> str:
        """Return the text to store for a model, a dataclass, or plain data of dicts, lists and scalars.

        Args:
            what: What the value is, for the message of an error.

        Raises:
            PayloadError: It is not JSON-able, would not read back, is too large, or holds a NUL or a lone surrogate.
        """
        text = self._checked(_to_json(value, what), what)
        if "null" in text and _is_model(value):
            self._check_floats(value, text, what)
        return text if self.codec is None else self._encoded(text, what, self.codec)

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
        try:
            return _read(model, self._plain(text))
        except ValidationError as error:
            raise PayloadError(f"A stored payload does not fit {model.__name__}: {reasons(error)}.") from error

    def load_item(self, model: type[ModelT], text: str, index: int) -> ModelT:
        """Return one item of a stored list as the model that it was.

        Raises:
            PayloadError: As of `load_model`.
        """
        item = to_json(from_json(self._plain(text))[index], inf_nan_mode="constants").decode()
        return replace(self, codec=None).load_model(model, item)

    def load_list(self, model: type[ModelT], texts: Iterable[str | None]) -> ModelT:
        """Return several stored payloads as one model of a list, with None where there is none.

        Raises:
            PayloadError: As of `load_model`.
        """
        items = ",".join("null" if text is None else self._plain(text) for text in texts)
        return replace(self, codec=None).load_model(model, f"[{items}]")

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

    def _check_floats(self, value: BaseModel, text: str, what: str) -> None:
        """Refuse a model that turns a float which is not finite into null, as models do unless told otherwise."""
        wanted = _count_non_finite(value.model_dump())
        if wanted and wanted != _count_non_finite(_dumped_again(type(value), text)):
            raise PayloadError(
                f"{what} holds a float that is infinite or not a number, which {type(value).__name__} writes as null. "
                "Set ser_json_inf_nan='strings' in its model_config."
            )

    def _encoded(self, text: str, what: str, codec: PayloadCodec) -> str:
        try:
            encoded = codec.encode(text)
        except Exception as error:
            raise PayloadError(f"{what} could not be encoded by {type(codec).__name__}: {error!r}.") from error
        return self._checked(_to_json(encoded, f"{what}, encoded,"), f"{what}, encoded,")

    def _plain(self, text: str) -> str:
        if self.codec is None:
            return text
        try:
            stored = from_json(text, cache_strings=False)
            return self.codec.decode(stored) if isinstance(stored, str) else text
        except Exception as error:
            raise PayloadError(f"{type(self.codec).__name__} could not decode a stored payload: {error!r}.") from error


def clean_text(text: str, limit: int) -> str:
    r"""Return a text that any database takes: NUL and lone surrogates escaped, cut to `limit` characters.

    >>> clean_text("no \x00 here", 100)
    'no \\x00 here'
    """
    cleaned = text[: limit + 1].encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
    return cleaned if len(cleaned) <= limit else f"{cleaned[: limit - 1]}…"


def _is_model(value: Any) -> TypeGuard[BaseModel]:
    """Return whether a value is a model, without the detour that `isinstance` takes through the metaclass."""
    return BaseModel in type(value).__mro__


def _to_json(value: Any, what: str) -> bytes:
    try:
        if _is_model(value):
            return value.__pydantic_serializer__.to_json(value, by_alias=False, round_trip=True)
        return to_json(value, by_alias=False, round_trip=True, bytes_mode="base64", inf_nan_mode="strings")
    except Exception as error:
        raise PayloadError(f"{what} cannot be stored as JSON: {error}. {_advice(str(error))}") from error


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
    found: ModelT = model.__pydantic_validator__.validate_json(text, by_alias=False, by_name=True)
    return found


def _dumped_again(model: type[BaseModel], text: str) -> Any:
    try:
        return _read(model, text).model_dump()
    except ValidationError:
        return None


def _count_non_finite(value: Any) -> int:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return sum(_count_non_finite(member) for member in value.values())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return sum(_count_non_finite(member) for member in value)
    return 0


def reasons(error: ValidationError) -> str:
    """Return what did not fit and why, without the values: errors are stored and logged, payloads may be secret."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in found)
