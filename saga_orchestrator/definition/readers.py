"""The validators by which stored payloads are read back: those of the models, without a look at the clock.

A `FutureDatetime` was in the future when it was given. When its step is undone it is in the past, and must be read all
the same. So what was checked when it was written is not checked against the clock again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import SchemaValidator

from .fidelity import Schema, schema_of

_readers: dict[type, SchemaValidator] = {}
_CLOCK = ("now_op", "now_utc_offset")
"""What says in a schema that a moment is compared with now."""
_OPAQUE = frozenset({"default", "metadata", "config", "cls", "members", "expected", "serialization"})
"""What holds no schema, but objects of the author's."""


def reader_of(model: Any) -> SchemaValidator:
    """Return the validator that reads a stored value of a model, or of a dataclass of Pydantic's."""
    found = _readers.get(model)
    if found is None:
        if (schema := schema_of(model)) is None:
            own: SchemaValidator = model.__pydantic_validator__
            return own
        found = _readers[model] = (asks_clock(model) and _make_timeless(schema)) or model.__pydantic_validator__
    return found


def asks_clock(model: Any) -> bool:
    """Return whether a model compares moments with now, as `FutureDatetime` and `PastDate` do."""
    return any("now_op" in node for node in _nodes_of(schema_of(model)))


def can_ignore_clock(model: Any) -> bool:
    """Return whether stored values of a model can be read later; old versions of Pydantic look at the clock always."""
    return not asks_clock(model) or reader_of(model) is not model.__pydantic_validator__


def find_twins(model: Any) -> str | None:
    """Return a field whose alias is the name of another field, or None.

    A text that may say names or aliases has two meanings for such a model.
    """
    for node in _nodes_of(schema_of(model)):
        fields = node.get("fields")
        named = {each["name"]: each for each in fields if "name" in each} if isinstance(fields, list) else fields or {}
        for name, field in named.items():
            if any(alias != name and alias in named for alias in _aliases_of(field)):
                return str(name)
    return None


def _aliases_of(field: Schema) -> list[Any]:
    alias = field.get("validation_alias")
    if not isinstance(alias, list):
        return [alias]
    return [each[0] if isinstance(each, list) else each for each in alias]


def _make_timeless(schema: Schema) -> SchemaValidator | None:
    """Return a validator that does not look at the clock; None where Pydantic cannot make one."""
    try:
        return SchemaValidator(_without_clock(schema), _use_prebuilt=False)
    except TypeError:  # it would take the validators of inner models as they are
        return None


def _without_clock(node: Any) -> Any:
    if isinstance(node, dict):
        kept = [(key, part) for key, part in node.items() if key not in _CLOCK]
        return {key: part if key in _OPAQUE else _without_clock(part) for key, part in kept}
    if isinstance(node, list | tuple):
        return type(node)(map(_without_clock, node))
    return node


def _nodes_of(schema: Any) -> Iterator[Schema]:
    pending, seen = [schema], set[int]()
    while pending:
        node = pending.pop()
        if isinstance(node, list | tuple):
            pending += node
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        pending += [part for key, part in node.items() if key not in _OPAQUE]
