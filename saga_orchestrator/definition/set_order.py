"""One order for the items of sets, so that equal values have equal texts.

A set is written in the order of its hash table, and the hash of a text differs in each process. So two processes would
write the same start in two ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic_core import from_json, to_json

from .fidelity import is_model


def sort_sets(value: Any, text: str) -> str:
    """Return the JSON text of a value with the items of its sets in the order of their texts."""
    if not _holds_sets(value):
        return text
    return _write(_sorted(value, from_json(text))).decode()


def _holds_sets(value: Any) -> bool:
    return isinstance(value, set | frozenset) or any(map(_holds_sets, _parts_of(value).values()))


def _sorted(value: Any, shown: Any) -> Any:
    """Return what JSON shows of a value, with its sets in order; what a serializer writes otherwise stays as it is."""
    if isinstance(value, set | frozenset) and isinstance(shown, list) and len(shown) == len(value):
        items = [_sorted(item, said) for item, said in zip(value, shown, strict=True)]
        return sorted(items, key=_write)
    if isinstance(value, list | tuple) and isinstance(shown, list) and len(shown) == len(value):
        return [_sorted(item, said) for item, said in zip(value, shown, strict=True)]
    if is_model(value) and not isinstance(shown, dict):
        return _sorted(value.__dict__.get("root"), shown)
    if isinstance(shown, dict):
        parts = {str(key): part for key, part in _parts_of(value).items()}
        return {key: _sorted(parts.get(key), said) for key, said in shown.items()}
    return shown


def _parts_of(value: Any) -> Mapping[Any, Any]:
    if is_model(value):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return dict(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    return {}


def _write(shown: Any) -> bytes:
    return to_json(shown, inf_nan_mode="constants")
