"""Whether a value that was read back is the value that was written, and if not, where the two differ.

An error names places and classes, never values: it is stored and logged, and payloads may be secret.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any

from pydantic import BaseModel

Found = str | None
"""What differs and where; None if nothing does."""
_LIBRARIES = frozenset({*sys.stdlib_module_names, "pydantic", "pydantic_core"})
"""Where classes come from whose `__eq__` looks at all that counts; some of them keep more than that."""
_SIMPLE = frozenset({str, int, bool, type(None), bytes})


def find_difference(written: Any, read: Any, path: str = "") -> Found:
    """Return where a value differs from what was written, in class or in value; None if it does not.

    Private attributes of models are not compared. NaN equals NaN. Aware datetimes are the same at the same instant and
    offset.
    """
    if not _is_same_class(written, read):
        return f"{_name(path)} is of class {_class(written)}, and would read back as {_class(read)}"
    if type(written) in _SIMPLE:
        return None if written == read else _changed(path, written)
    for kind, find in _KINDS:
        if isinstance(written, kind):
            return find(written, read, path) or _find_in_own(written, read, path)
    if is_dataclass(written):
        names = {field.name: None for field in fields(written)}
        return _find_in_attributes(written, read, path, {**names, **_attributes_of(written)})
    if _has_no_say(written):
        return _find_in_own(written, read, path)
    is_odd = written != written and read != read  # noqa: PLR0124 - as NaN is
    return _find_in_own(written, read, path) if written == read or is_odd else _changed(path, written)


def _is_same_class(written: Any, read: Any) -> bool:
    """Return whether two values have one class. A stand-in for datetime, as test tools install, has its own say."""
    if type(written) is type(read):
        return True
    is_moment = isinstance(written, datetime) and isinstance(read, datetime)
    is_day = not isinstance(written, datetime) and isinstance(written, date) and type(read) is date
    return (is_moment or is_day) and isinstance(read, type(written))


def _find_in_model(written: BaseModel, read: BaseModel, path: str) -> Found:
    names = type(written).model_fields
    return _find_in_attributes(written, read, path, names) or find_difference(
        written.__pydantic_extra__, read.__pydantic_extra__, path
    )


def _find_in_attributes(written: Any, read: Any, path: str, names: Iterable[str]) -> Found:
    for name in names:
        mine, theirs = getattr(written, name, _MISSING), getattr(read, name, _MISSING)
        if found := find_difference(mine, theirs, _join(path, name)):
            return found
    return None


def _has_no_say(value: Any) -> bool:
    """Return whether a class of the author's leaves it to its attributes which of its objects are equal."""
    is_default = getattr(type(value), "__eq__", None) is object.__eq__
    return is_default and _is_own(value) and hasattr(value, "__dict__")


def _is_own(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] not in _LIBRARIES


def _find_in_own(written: Any, read: Any, path: str) -> Found:
    """Compare the attributes of an object whose class is the author's: its `__eq__` may look at less."""
    if isinstance(written, BaseModel) or not _is_own(written):
        return None
    return _find_in_attributes(written, read, path, {**_attributes_of(written), **_attributes_of(read)})


def _attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, also those in slots; not those of cached properties."""
    kept = object.__getstate__(value)
    parts = kept if isinstance(kept, tuple) else (kept,)
    found = {name: member for part in parts for name, member in (part or {}).items()}
    return {name: found[name] for name in found if not isinstance(getattr(type(value), name, None), cached_property)}


def _find_in_scalar(written: Any, read: Any, path: str) -> Found:
    base = next(kind for kind in (str, bytes, int) if isinstance(written, kind))
    return None if base.__eq__(written, read) is True else _changed(path, written)


def _find_in_deque(written: deque[Any], read: deque[Any], path: str) -> Found:
    if written.maxlen != read.maxlen:
        return f"{_name(path)} is a deque of {written.maxlen} items at most, and would read back without that limit"
    return _find_in_sequence(written, read, path)


def _find_in_defaultdict(written: defaultdict[Any, Any], read: defaultdict[Any, Any], path: str) -> Found:
    if written.default_factory is not read.default_factory:
        return f"{_name(path)} is a defaultdict, and would read back with another default_factory"
    return _find_in_mapping(written, read, path)


def _find_in_mapping(written: Mapping[Any, Any], read: Mapping[Any, Any], path: str) -> Found:
    if len(written) != len(read):
        return f"{_name(path)} has {len(written)} keys, and would read back with {len(read)}"
    for (key, value), (read_key, read_value) in zip(written.items(), read.items(), strict=True):
        if find_difference(key, read_key):
            return f"a key of {_name(path)}, of class {_class(key)}, would read back as another"
        if found := find_difference(value, read_value, f"{path}[]"):
            return found
    return None


def _find_in_sequence(written: Any, read: Any, path: str) -> Found:
    if len(written) != len(read):
        return f"{_name(path)} has {len(written)} items, and would read back with {len(read)}"
    for mine, theirs in zip(written, read, strict=True):
        if found := find_difference(mine, theirs, f"{path}[]"):
            return found
    return None


def _find_in_set(written: Any, read: Any, path: str) -> Found:
    left = list(read)
    for mine in written:
        twin = next((place for place, theirs in enumerate(left) if find_difference(mine, theirs) is None), None)
        if twin is None:
            return f"an item of {_name(path)}, of class {_class(mine)}, would read back as another"
        del left[twin]
    return f"{_name(path)} would read back with more items" if left else None


def _find_in_enum(written: Enum, read: Enum, path: str) -> Found:
    return None if written is read else _changed(path, written)


def _find_in_decimal(written: Decimal, read: Decimal, path: str) -> Found:
    return None if written.as_tuple() == read.as_tuple() else _changed(path, written)


def _find_in_float(written: float, read: float, path: str) -> Found:
    return None if float.__repr__(written) == float.__repr__(read) else _changed(path, written)


def _find_in_time(written: datetime | time, read: datetime | time, path: str) -> Found:
    """Compare the clock's face and the offset. An aware time whose zone needs a date has no offset."""
    fold = written.fold if written.tzinfo is None else 0
    is_same = (
        written.replace(tzinfo=None, fold=0) == read.replace(tzinfo=None, fold=0)
        and written.utcoffset() == read.utcoffset()
        and (written.tzinfo is None) == (read.tzinfo is None)
        and fold == read.fold
    )
    return None if is_same else _changed(path, written)


_KINDS: tuple[tuple[Any, Callable[[Any, Any, str], Found]], ...] = (
    (BaseModel, _find_in_model),
    (Enum, _find_in_enum),
    (float, _find_in_float),
    (Decimal, _find_in_decimal),
    ((datetime, time), _find_in_time),
    (defaultdict, _find_in_defaultdict),
    (Mapping, _find_in_mapping),
    ((set, frozenset), _find_in_set),
    ((list, tuple), _find_in_sequence),
    (deque, _find_in_deque),
    ((str, bytes, int), _find_in_scalar),
)
_MISSING = type("Missing", (), {"__repr__": lambda _: "nothing"})()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name(path: str) -> str:
    return f"'{path}'" if path else "it"


def _class(value: Any) -> str:
    return "nothing" if value is _MISSING else type(value).__name__


def _changed(path: str, written: Any) -> str:
    return f"{_name(path)}, of class {_class(written)}, would read back with another value"
