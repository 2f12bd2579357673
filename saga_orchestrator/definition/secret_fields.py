"""Secrets in payloads: pydantic writes them as asterisks, so where a codec encrypts they are written in full here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from pydantic import Secret, SecretBytes, SecretStr
from pydantic_core import to_json, to_jsonable_python

from .fidelity import is_model

SECRET = (SecretStr, SecretBytes, Secret)


def find_secrets(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Return the secrets in a value, each with its place."""
    if isinstance(value, SECRET):
        yield path or "it", value
    for below, member in _members_of(value):
        yield from find_secrets(member, f"{path}{below}".removeprefix("."))


def _members_of(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Enum):
        yield "", value.value
    elif isinstance(value, Mapping):
        yield from (("", key) for key in value)
        yield from ((_name_of(key), member) for key, member in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (("[]", member) for member in value)
    elif is_model(value):
        yield from ((f".{name}", member) for name, member in value.__dict__.items())
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{field.name}", getattr(value, field.name, None)) for field in fields(value))


def _name_of(key: Any) -> str:
    """Return the place of a dict's member. A key that could be no field's name may be a value, and is not shown."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else "[]"


def reveal(value: Any) -> Any:
    """Return plain values of JSON for a value, with its secrets in full."""
    if isinstance(value, SECRET):
        return _revealed(value)
    if isinstance(value, Enum):
        return reveal(value.value)
    if is_model(value):
        written = value.__pydantic_serializer__
        shown = written.to_python(value, mode="json", by_alias=False, round_trip=True, warnings=False)
        real = written.to_python(value, mode="python", by_alias=False, round_trip=True, warnings=False)
        return _overlay(shown, real)
    if isinstance(value, Mapping):
        return {key: reveal(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [reveal(member) for member in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: reveal(getattr(value, field.name)) for field in fields(value)}
    return value


def write_in_full(value: Any) -> bytes:
    """Return the JSON of a value with its secrets in full."""
    return to_json(reveal(value), by_alias=False, round_trip=True, bytes_mode="base64", inf_nan_mode="strings")


def _overlay(shown: Any, real: Any) -> Any:
    """Put secrets in the place of their asterisks. Both values have one structure: one model made them."""
    if isinstance(real, SECRET):
        return _revealed(real)
    if isinstance(real, Mapping) and isinstance(shown, dict) and len(real) == len(shown):
        return {
            key: _overlay(*pair)
            for key, pair in zip(shown, zip(shown.values(), real.values(), strict=True), strict=True)
        }
    if isinstance(real, list | tuple | set | frozenset) and isinstance(shown, list) and len(real) == len(shown):
        return [_overlay(*pair) for pair in zip(shown, real, strict=True)]
    return shown


def _revealed(secret: Any) -> Any:
    found = secret.get_secret_value()
    if isinstance(found, bytes):
        return found.decode("utf-8", "surrogateescape")  # what is no text is refused by the writer
    return to_jsonable_python(found, by_alias=False, round_trip=True)
