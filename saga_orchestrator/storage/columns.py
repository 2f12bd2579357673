"""The engine's columns on the user's model: each is as the engine needs it, or the model is refused.

SQLAlchemy takes a column from the first class of the MRO that has it. So a `Base` with an `id` or an `updated_at` of
its own wins over a mixin that is named after it, and a column in the model's own body wins over both. The engine writes
past the ORM where it can, so a type, a default or an `onupdate` of another meaning would be found out in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Enum, Integer, String, Table
from sqlalchemy import types as sql
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import UnmappedColumnError

from ..errors import SagaDefinitionError, SagaStateError

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_GIVEN = ("id", "created_at")
"""The engine gives these with every insert, so that a default of the user's is never asked for."""
_TEXTS = (sql.String, sql.VARCHAR, sql.Text, sql.TEXT, sql.Unicode, sql.UnicodeText)
_NUMBERS = (sql.Integer, sql.INTEGER, sql.BigInteger, sql.BIGINT)
_DATABASES = ("postgresql", "sqlite")
_NOW = ("now()", "current_timestamp", "current_timestamp()")


def adopt_columns(cls: type, head: Table, needed: Table, mixin: type) -> None:
    """Give the engine's columns on a model the types that the engine reads and writes by.

    Raises:
        SagaDefinitionError: A column is missing, or is another than the engine needs; the message names it.
    """
    for column in needed.c:
        found = head.c.get(column.name)
        if found is None:
            raise SagaDefinitionError(
                f"{cls.__name__} has no column {column.name!r} in the table {head.name!r}, which the engine needs. "
                f"{_cure(cls, column.name, mixin)}"
            )
        for problem in _problems(found, column):
            raise SagaDefinitionError(
                f"{cls.__name__}.{column.name} {problem}. The engine writes this column, and another one has taken the "
                f"place of the mixin's. {_cure(cls, column.name, mixin)}"
            )
        if not isinstance(column.type, String | Integer) and repr(found.type) != repr(column.type):
            found.type = column.type
        if column.name in (*_GIVEN, "updated_at"):
            found.default = None
    if [column.name for column in head.primary_key] != ["id"]:
        names = ", ".join(column.name for column in head.primary_key)
        raise SagaDefinitionError(
            f"{cls.__name__} has the primary key ({names}), and a saga is found by its id alone. "
            f"Name {mixin.__name__} first among the bases, and let no other column be a primary key."
        )


def check_attributes(mapper: Mapper[Any], needed: Table) -> None:
    """Refuse a model whose attributes have other names than the engine's columns.

    Raises:
        SagaDefinitionError: With the column, and what its attribute is called.
    """
    name = mapper.class_.__name__
    for column in needed.c:
        try:
            key = mapper.get_property_by_column(mapper.local_table.c[column.name]).key
        except UnmappedColumnError:
            raise SagaDefinitionError(
                f"{name} does not map the engine's column {column.name!r}. Map all of the mixin's columns."
            ) from None
        if key != column.name:
            raise SagaDefinitionError(
                f"{name} maps the engine's column {column.name!r} as {key!r}. Keep the mixin's names: column_prefix "
                "and renamed attributes are for columns of your own."
            )


class OwnColumns:
    """The columns of a model that are the user's own, and what `start(values=)` has to say of them."""

    def __init__(self, model: type[Any], head: Table, engines: frozenset[str]) -> None:
        self._model = model.__name__
        own = [column for column in head.c if column.name not in engines]
        self._known = frozenset(column.key for column in own)
        self._needed = tuple(column.key for column in own if _is_needed(column))

    def check(self, values: Any) -> None:
        """Refuse values for columns that do not exist, and a saga without a value that its table demands.

        Raises:
            SagaStateError: With the columns, and what to do.
        """
        if unknown := [name for name in values if name not in self._known]:
            known = ", ".join(sorted(self._known)) or "none"
            raise SagaStateError(
                f"values= names {unknown[0]!r:.80}, which is no column of {self._model}. Its own columns: {known}."
            )
        if missing := [name for name in self._needed if values.get(name) is None]:
            raise SagaStateError(
                f"{self._model} needs a value for {', '.join(missing)}, which may not be NULL and has no default. "
                f"Give it with start(values={{{missing[0]!r}: ...}}). A child saga is given no values: for children, "
                "let the column have a default or be nullable."
            )


def _is_needed(column: Column[Any]) -> bool:
    is_filled = column.default or column.server_default or column.computed or column.identity
    return not column.nullable and is_filled is None


def _problems(found: Column[Any], needed: Column[Any]) -> Iterator[str]:
    """Yield what is wrong with a column, most important first."""
    if found.name != found.key:
        yield f"is called {found.name!r} in its table; the engine needs {needed.name!r}"
    if not _fits(found.type, needed.type):
        yield f"is of the type {found.type!r}; the engine needs {needed.type!r}"
    if bool(found.nullable) is not bool(needed.nullable):
        yield f"is declared nullable={found.nullable}; the engine needs nullable={needed.nullable}"
    if found.onupdate is not None or found.server_onupdate is not None:
        yield "has onupdate=, which would change it beside what the engine writes"
    if found.computed is not None or found.identity is not None:
        yield "is computed by the database"
    yield from _default_problems(found, needed)


def _default_problems(found: Column[Any], needed: Column[Any]) -> Iterator[str]:
    if found.name in _GIVEN:
        return
    if found.default is not None and found.name != "updated_at":
        yield "has default=, which would never be used"
    said, wanted = _default(found), _default(needed)
    if said != wanted:
        yield f"has the server_default {said!r}; the engine needs {wanted!r}"


def _default(column: Column[Any]) -> str | None:
    if column.server_default is None:
        return None
    shown = str(getattr(column.server_default, "arg", column.server_default)).strip("'").lower()
    return "now()" if shown in _NOW else shown


def _fits(found: Any, needed: Any) -> bool:
    """Return whether a column of one type holds, on every database, what the engine writes and reads by the other."""
    pairs = [(found, needed), *((_variant(found, name), _variant(needed, name)) for name in _variants(found, needed))]
    return all(_is_as_good(one, other) for one, other in pairs)


def _variants(*kinds: Any) -> set[str]:
    """Return the databases on which one of the types is another."""
    return {name for kind in kinds for name in kind._variant_mapping if name in _DATABASES}  # noqa: SLF001


def _variant(kind: Any, name: str) -> Any:
    return kind._variant_mapping.get(name, kind)  # noqa: SLF001 - SQLAlchemy shows it in no other way


def _is_as_good(found: Any, needed: Any) -> bool:
    if isinstance(needed, Enum):
        return isinstance(found, Enum) and found.enums == needed.enums and _ddl(found) == _ddl(needed)
    if isinstance(needed, String):
        if type(found) not in _TEXTS:
            return False
        is_long = type(found) in _TEXTS and (
            found.length is None or found.length >= (needed.length or found.length + 1)
        )
        return is_long and found.collation is None
    if isinstance(needed, Integer):
        return type(found) in _NUMBERS
    if isinstance(found, sql.TypeDecorator) and type(found) is not type(needed):
        return False
    return _ddl(found) == _ddl(needed) and _python_type(found) is _python_type(needed)


def _ddl(kind: Any) -> str | None:
    try:
        return str(kind.compile(dialect=_DIALECT))
    except CompileError:
        return None


def _python_type(kind: Any) -> Any:
    try:
        return (kind.impl_instance if isinstance(kind, sql.TypeDecorator) else kind).python_type
    except NotImplementedError:
        return None


def _cure(cls: type, name: str, mixin: type) -> str:
    """Return what to do about a column: where in the MRO it comes from decides."""
    for base in cls.__mro__[1:]:
        if base is mixin:
            break
        if name in vars(base) or name in vars(base).get("__annotations__", {}):
            first = f"{mixin.__name__}, {base.__name__}"
            return f"Name {mixin.__name__} before {base.__name__}: class {cls.__name__}({first})."
    return f"Leave {name!r} to the mixin: take it out of {cls.__name__}, or give its table the mixin's column."
