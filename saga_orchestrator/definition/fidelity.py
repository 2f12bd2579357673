"""What the schema of a model promises: whether its values read back from JSON as what they were.

A schema is analysed once a class. Its promise holds for values whose fields have the very classes that it declares; a
`check` tells that for a value, much faster than reading it back would. Where a schema can promise nothing (validators,
serializers, constraints that a value may have escaped), there is no check, and the value is read back and compared.
What no value survives is a flaw: a field that is never written, an iterator that writing uses up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple, TypeGuard
from uuid import UUID

from pydantic import BaseModel

Check = Callable[[Any], bool]
"""Returns whether the schema's promise holds for a value."""
Kinds = Mapping[type, Check | None]
"""The classes that a field's value may have, each with what else must hold; None: nothing else."""
Schema = Mapping[str, Any]


class Plan(NamedTuple):
    """What the schema of a model says.

    Attributes:
        check: Tells of a value that it reads back as it is, or raises KeyError for one that lacks a field; None where
            only a comparison can tell.
        flaws: The fields that never read back, each with why.
        secrets: The fields that are written as asterisks.
        is_plain: It is the library's own, and holds plain data, which reads back as plain values of JSON.
    """

    check: Check | None
    flaws: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    is_plain: bool = False


class _NoPromiseError(Exception):
    """A schema promises nothing."""


_plans: dict[type, Plan] = {}
_checks: dict[type, Check] = {}
"""The checks of the models that have been analysed and have one."""
_UNKNOWN = Plan(None)


def plan_of(model: type[BaseModel]) -> Plan:
    """Return what the schema of a model says; of one that is not complete yet, that nothing is known."""
    found = _plans.get(model)
    if found is None:
        schema = schema_of(model)
        if schema is None:
            return _UNKNOWN
        is_plain = getattr(model, "__holds_plain_data__", False)
        flaws, secrets = tuple(_find_flaws(schema)), tuple(_find_secrets(schema))
        found = _plans[model] = Plan(_check_of(model, schema), flaws, secrets, is_plain)
        if found.check is not None:
            _checks[model] = found.check
    return found


def is_exact(value: Any) -> bool:
    """Return whether the schema of a value's class promises that it reads back as it is.

    Of a class that nobody has analysed yet it says no.
    """
    try:
        return _checks[type(value)](value)
    except KeyError:  # it has no check, or the value lacks a field
        return False


def names_of(model: type) -> frozenset[str]:
    """Return the names that the schema of a model has: of fields, of classes, and of kinds."""
    found: set[str] = set()
    for path, node in _walk(getattr(model, "__pydantic_core_schema__", None)):
        aliases = (node.get("validation_alias"), node.get("serialization_alias"))
        tags = choices if isinstance(choices := node.get("choices"), dict) else ()
        kind = (node.get("type"), getattr(node.get("cls"), "__name__", None))
        names = (path.rpartition(".")[2], *kind, *aliases, *tags)
        found.update(name for name in names if isinstance(name, str))
    return frozenset(found)


def is_model(value: Any) -> TypeGuard[BaseModel]:
    """Return whether a value is a model, without the detour that `isinstance` takes through the metaclass."""
    return BaseModel in type(value).__mro__


def schema_of(model: Any) -> Schema | None:
    """Return the schema of a model, or of a dataclass of Pydantic's; None if it is not complete yet."""
    schema: Any = getattr(model, "__pydantic_core_schema__", None)
    if not isinstance(schema, dict) and hasattr(model, "model_rebuild"):
        model.model_rebuild(raise_errors=False)
        schema = model.__pydantic_core_schema__
    return schema if isinstance(schema, dict) else None


# --- what a schema promises ------------------------------------------------------------------------------------------


def _check_of(model: type[BaseModel], schema: Schema) -> Check | None:
    try:
        return _Analysis().kinds(schema).get(model)
    except (_NoPromiseError, LookupError, TypeError):  # a schema of the author's own may have any form
        return None


def _never(_: Any) -> bool:
    return False


def is_zone_kept(moment: datetime | time) -> bool:
    """Return whether JSON keeps an offset; it has no seconds. Of an instant without zone it does not keep the fold."""
    zone = moment.tzinfo
    if zone is UTC:
        return True
    if zone is None:
        return not moment.fold
    offset = moment.utcoffset()
    return offset is not None and not offset.total_seconds() % 60


_LEAVES: Mapping[str, Kinds] = {
    "none": {type(None): None},
    "bool": {bool: None},
    "int": {int: None},
    "str": {str: None},
    "float": {float: math.isfinite},
    "decimal": {Decimal: Decimal.is_finite},
    "uuid": {UUID: None},
    "date": {date: None},
    "datetime": {datetime: is_zone_kept},
    "time": {time: is_zone_kept},
}
_ANYWHERE = frozenset({"type", "ref", "metadata"})
"""What says nothing of how a value is read or written."""
_KNOWN = {
    "any": frozenset[str](),
    "nullable": frozenset({"schema"}),
    "default": frozenset({"schema", "default", "default_factory", "default_factory_takes_data", "validate_default"}),
    "list": frozenset({"items_schema"}),
    "set": frozenset({"items_schema"}),
    "frozenset": frozenset({"items_schema"}),
    "dict": frozenset({"keys_schema", "values_schema"}),
    "literal": frozenset({"expected"}),
    "enum": frozenset({"cls", "members", "sub_type"}),
    "union": frozenset({"choices"}),
    "definitions": frozenset({"schema", "definitions"}),
    "definition-ref": frozenset({"schema_ref"}),
    "model": frozenset(
        {"cls", "schema", "config", "custom_init", "root_model", "post_init", "generic_origin", "frozen"}
    ),
    "model-fields": frozenset({"fields", "model_name", "computed_fields"}),
    "model-field": frozenset({"schema", "validation_alias", "serialization_alias", "frozen"}),
    "datetime": frozenset({"microseconds_precision"}),
    "time": frozenset({"microseconds_precision"}),
}
_HARMLESS_SETTINGS = frozenset(
    {
        "title",
        "extra_fields_behavior",
        "from_attributes",
        "loc_by_alias",
        "populate_by_name",
        "validate_by_name",
        "validate_by_alias",
        "serialize_by_alias",
        "ser_json_inf_nan",
        "ser_json_bytes",
        "val_json_bytes",
        "hide_input_in_errors",
        "validation_error_cause",
        "frozen",
        "validate_assignment",
    }
)
"""Settings of a model that change nothing for the fields that have a check."""
_PLAIN = frozenset({"str", "int", "bool", "none"})
"""What JSON tells apart by itself."""


class _Later:
    """The check of a model that holds itself, which is needed before it is made."""

    check: Check | None = None

    def __call__(self, value: Any) -> bool:
        assert self.check is not None
        return self.check(value)


class _Analysis:
    """Finds the check of one schema."""

    def __init__(self) -> None:
        self._definitions: dict[str, Schema] = {}
        self._found: dict[str, Kinds] = {}

    def kinds(self, schema: Schema) -> Kinds:
        """Return the classes that a schema declares.

        Raises:
            _NoPromiseError: It promises nothing.
        """
        kind = schema["type"]
        if schema.keys() - _ANYWHERE - _KNOWN.get(kind, frozenset()):
            raise _NoPromiseError
        if kind in _LEAVES:
            return _LEAVES[kind]
        if kind not in _ANALYSES:
            raise _NoPromiseError
        found: Kinds = getattr(self, _ANALYSES[kind])(schema)
        return found

    def _inner(self, schema: Schema) -> Kinds:
        return self.kinds(schema["schema"])

    def _nullable(self, schema: Schema) -> Kinds:
        return {**self._inner(schema), type(None): None}

    def _any(self, schema: Schema) -> Kinds:
        return _ANY

    def _union(self, schema: Schema) -> Kinds:
        if any(isinstance(choice, tuple) or choice["type"] not in _PLAIN for choice in schema["choices"]):
            raise _NoPromiseError
        return {kind: None for choice in schema["choices"] for kind in self.kinds(choice)}

    def _literal(self, schema: Schema) -> Kinds:
        expected = schema["expected"]
        kinds = {type(each) for each in expected}
        if len(kinds) != 1 or not kinds <= {str, int}:
            raise _NoPromiseError
        return {kinds.pop(): frozenset(expected).__contains__}

    def _enum(self, schema: Schema) -> Kinds:
        values = {type(member.value) for member in schema["members"]}
        if len(values) != 1 or not values <= {str, int} or not all(type(m) is schema["cls"] for m in schema["members"]):
            raise _NoPromiseError
        return {schema["cls"]: frozenset(schema["members"]).__contains__}

    def _list(self, schema: Schema) -> Kinds:
        return {_COLLECTIONS[schema["type"]]: _check_items(self.kinds(schema.get("items_schema", _ANY_SCHEMA)))}

    def _dict(self, schema: Schema) -> Kinds:
        keys = schema.get("keys_schema", _ANY_SCHEMA)
        if keys.keys() - _ANYWHERE or keys["type"] != "str":
            raise _NoPromiseError
        check_values = _check_items(self.kinds(schema.get("values_schema", _ANY_SCHEMA)))

        def check(value: dict[Any, Any]) -> bool:
            return _STR.issuperset(map(type, value)) and check_values(value.values())

        return {dict: check}

    def _defined(self, schema: Schema) -> Kinds:
        self._definitions |= {each["ref"]: each for each in schema["definitions"]}
        return self._inner(schema)

    def _reference(self, schema: Schema) -> Kinds:
        ref = schema["schema_ref"]
        if ref not in self._found:
            target = self._definitions[ref]
            if target["type"] != "model":
                raise _NoPromiseError
            later = _Later()
            self._found[ref] = {target["cls"]: later}
            (later.check,) = self.kinds(target).values()
        return self._found[ref]

    def _model(self, schema: Schema) -> Kinds:
        settings = schema.get("config", {})
        is_plain = not schema.get("custom_init") and schema.get("post_init") in (None, "init_private_attributes")
        if not is_plain or settings.keys() - _HARMLESS_SETTINGS or settings.get("extra_fields_behavior") == "allow":
            raise _NoPromiseError
        inner = schema["schema"]
        if schema.get("root_model"):
            return {schema["cls"]: _check_fields([("root", self.kinds(inner))])}
        if inner["type"] != "model-fields":
            raise _NoPromiseError
        self.kinds(inner)
        return {schema["cls"]: _check_fields([(name, self.kinds(field)) for name, field in inner["fields"].items()])}

    def _fields(self, schema: Schema) -> Kinds:
        return {}


_ANALYSES: Mapping[str, str] = {
    "any": "_any",
    "nullable": "_nullable",
    "default": "_inner",
    "model-field": "_inner",
    "union": "_union",
    "literal": "_literal",
    "enum": "_enum",
    "list": "_list",
    "set": "_list",
    "frozenset": "_list",
    "dict": "_dict",
    "definitions": "_defined",
    "definition-ref": "_reference",
    "model": "_model",
    "model-fields": "_fields",
}
_COLLECTIONS: Mapping[str, type] = {"list": list, "set": set, "frozenset": frozenset}
_ANY_SCHEMA: Schema = {"type": "any"}
_STR = frozenset({str})


def _check_fields(fields: list[tuple[str, Kinds]]) -> Check:
    """Return a check of a model, as one expression: it is evaluated for every payload.

    It raises KeyError for a field that is missing.
    """
    known: dict[str, Any] = {}
    tests = [_test_of(f"facts[{name!r}]", kinds, str(place), known) for place, (name, kinds) in enumerate(fields)]
    source = f"lambda model: (facts := model.__dict__) is not None and {' and '.join(tests) or 'True'}"
    check: Check = eval(source, known)  # noqa: S307 - names of fields stand in it as texts, and nothing else of theirs
    return check


def _test_of(value: str, kinds: Kinds, place: str, known: dict[str, Any]) -> str:
    """Return the expression that tests one field, and make known what it names."""
    if len(kinds) > 1 and any(kinds.values()):
        known[f"check{place}"] = _check_kinds(kinds)
        return f"check{place}({value})"
    if len(kinds) > 1:
        known[f"kinds{place}"] = frozenset(kinds)
        return f"type({value}) in kinds{place}"
    ((known[f"kind{place}"], also),) = kinds.items()
    known[f"check{place}"] = also
    return f"type({value}) is kind{place}" + (f" and check{place}({value})" if also else "")


def _check_kinds(kinds: Kinds) -> Check:
    def check(value: Any) -> bool:
        also = kinds.get(type(value), _never)
        return also is None or also(value)

    return check


def _check_items(kinds: Kinds) -> Check:
    """Return a check of a collection; where the classes say all, it looks at nothing else."""
    allowed = frozenset(kinds)
    rest = {kind: check for kind, check in kinds.items() if check is not None}
    if not rest:
        return lambda items: allowed.issuperset(map(type, items))

    def check(items: Any) -> bool:
        if not allowed.issuperset(map(type, items)):
            return False
        return all(rest[type(item)](item) for item in items if type(item) in rest)

    return check


def _holds_plain_values(value: dict[Any, Any]) -> bool:
    return _STR.issuperset(map(type, value)) and _are_plain(value.values())


def _are_plain(items: Any) -> bool:
    """Return whether all items are such that JSON has them."""
    return _check_plain(items)


_ANY: Kinds = {
    **dict.fromkeys((str, int, bool, type(None))),
    float: math.isfinite,
    dict: _holds_plain_values,
    list: _are_plain,
}
_check_plain = _check_items(_ANY)


# --- what never reads back -------------------------------------------------------------------------------------------


def _find_flaws(schema: Schema) -> Iterator[tuple[str, str]]:
    for path, node in _walk(schema):
        if node.get("serialization_exclude"):
            yield path, "has exclude=True, so it is not stored"
        if node.get("type") == "generator":
            yield path, "is an iterator, which is used up when it is stored"


def _find_secrets(schema: Schema) -> list[str]:
    found = [path for path, node in _walk(schema) if _writes_asterisks(node.get("serialization", {}).get("function"))]
    return sorted(set(found))


def _writes_asterisks(writer: Any) -> bool:
    name = getattr(writer, "__name__", "")
    return getattr(writer, "__module__", "") == "pydantic.types" and name.startswith("_serialize_secret")


def _walk(schema: Any) -> Iterator[tuple[str, Schema]]:
    """Return the parts of a schema, each with its place in the model; those that an own serializer writes are not."""
    definitions: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = [("", schema)]
    seen: set[int] = set()
    while pending:
        path, node = pending.pop(0)
        if isinstance(node, list | tuple):
            pending += [(path, each) for each in node]
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        yield path, node
        if "schema_ref" in node:
            pending.append((path, definitions.get(node["schema_ref"])))
        definitions |= {each["ref"]: each for each in node.get("definitions", ()) if "ref" in each}
        writer = node.get("serialization", {}).get("function")
        if writer is None:
            pending += _parts(path, node)


def _parts(path: str, node: Schema) -> list[tuple[str, Any]]:
    fields = node.get("fields") if node.get("type") in ("model-fields", "typed-dict") else None
    if isinstance(fields, dict):
        return [(f"{path}.{name}" if path else name, field) for name, field in fields.items()]
    named = [(f"{path}.{each.get('name')}", each) for each in node.get("fields", ()) if isinstance(each, dict)]
    skipped = ("definitions", "fields", "metadata", "config", "default", "cls", "members", "serialization")
    return named + [(path, part) for key, part in node.items() if key not in skipped]
