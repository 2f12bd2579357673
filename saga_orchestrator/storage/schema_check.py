"""Whether the tables of the sagas are in the database, and are those of this version of the library.

The catalogue is asked, and not the tables: on PostgreSQL a statement that fails would end a caller's transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from shlex import quote
from weakref import WeakKeyDictionary

from loguru import logger
from sqlalchemy import Dialect, Engine, ExceptionContext, Table, TextClause, bindparam, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..errors import SagaSchemaError
from .companions import history_table, inbox_table, route_table
from .database_errors import is_of_a_missing_name, is_of_the_schema
from .mixins import COLUMNS

_ON_POSTGRESQL = """
SELECT c.relname, a.attname, t.typname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE c.relname IN :names AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND """
_IN_SCHEMA, _ON_THE_PATH = "n.nspname = :schema", "pg_catalog.pg_table_is_visible(c.oid)"


async def check_tables(connection: AsyncConnection, head: Table, *, is_callers: bool = False) -> None:
    """Check that the saga table and its companions have all that the engine needs. It is one query, and only reads.

    Where the catalogue may not be read, the tables are taken to be there.

    Args:
        is_callers: The connection is in a caller's transaction, which goes on whatever the database answers.

    Raises:
        SagaSchemaError: A table is missing, or is of another version.
    """
    schema = _schema_of(connection, head)
    question = _question(connection.dialect.name, [table.name for table in tables_of(head)], schema)
    if question is None:
        return
    is_ended_by_errors = is_callers and connection.dialect.name == "postgresql"
    try:
        async with connection.begin_nested() if is_ended_by_errors else nullcontext():
            rows = (await connection.execute(question)).all()
    except DBAPIError as error:
        if is_of_the_schema(error):
            return
        raise
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table.lower(), {})[column] = kind
    _compare(head, schema, found, connection.dialect)


def _compare(head: Table, schema: str | None, found: Mapping[str, Mapping[str, str]], dialect: Dialect) -> None:
    for table in tables_of(head):
        name = f"{schema}.{table.name}" if schema else table.name
        columns = found.get(table.name.lower())
        if columns is None:
            raise SagaSchemaError(name, "missing", _made(head.name, schema))
        if lack := lack_of(table, columns, dialect):
            raise SagaSchemaError(name, f"of another version of this library: {lack}", _mended(head.name, schema))


def tables_of(head: Table) -> list[Table]:
    """Return a saga table and its companions."""
    return [head, history_table(head), inbox_table(head), route_table(head)]


def lack_of(wanted: Table, found: Mapping[str, str], dialect: Dialect) -> str | None:
    """Return what a table lacks of the columns that the engine needs; None if it lacks nothing.

    Args:
        wanted: The table as this version maps it. Columns of the application's own are left out.
        found: The types of the columns that the table has, each by its name.

    Types are not compared, except JSON with JSONB: an application may map a column of its own type.
    """
    kinds = {name.lower(): kind.upper() for name, kind in found.items()}
    is_head = COLUMNS.c.keys() <= wanted.c.keys()
    for column in wanted.c:
        if is_head and column.name not in COLUMNS.c:
            continue
        kind = kinds.get(column.name)
        if kind is None:
            return f"it has no column '{column.name}'"
        needed = column.type.compile(dialect=dialect)
        if kind != needed and {kind, needed} == {"JSON", "JSONB"}:
            return f"its column '{column.name}' is {kind.lower()} and not {needed.lower()}"
    return None


def _schema_of(connection: AsyncConnection, head: Table) -> str | None:
    sync = connection.sync_connection
    translated = None if sync is None else sync.get_execution_options().get("schema_translate_map")
    schema: str | None = (translated or {}).get(head.schema, head.schema)
    return schema


def _question(dialect: str, names: Sequence[str], schema: str | None) -> TextClause | None:
    """Return the query for the columns of some tables; None for a database whose catalogue is not known."""
    if dialect == "postgresql":
        where = _ON_THE_PATH if schema is None else _IN_SCHEMA
        asked = text(_ON_POSTGRESQL + where).bindparams(bindparam("names", list(names), expanding=True))
        return asked if schema is None else asked.bindparams(schema=schema)
    if dialect != "sqlite":
        return None
    place = "" if schema is None else ", :schema"
    each = [f"SELECT :t{n}, name, type FROM pragma_table_info(:t{n}{place})" for n in range(len(names))]
    given = {f"t{n}": name for n, name in enumerate(names)} | ({} if schema is None else {"schema": schema})
    return text(" UNION ALL ".join(each)).bindparams(**given)


def _command(table: str, schema: str | None) -> str:
    place = "" if schema is None else f" --schema {quote(schema)}"
    return f"`saga db upgrade --table {quote(table)}{place}`"


def _made(table: str, schema: str | None) -> str:
    return (
        f"Make the tables with Base.metadata.create_all, with {_command(table, schema)}, or with a revision of your "
        "own: docs/howto/migrations.md."
    )


def _mended(table: str, schema: str | None) -> str:
    return (
        "Base.metadata.create_all changes no table that is there. Bring the tables up to date with a revision of your "
        f"own, or with {_command(table, schema)}: docs/howto/migrations.md."
    )


# --- tables that are lost while an engine runs ------------------------------------------------------------------------

_watched: WeakKeyDictionary[Engine, dict[str, re.Pattern[str]]] = WeakKeyDictionary()
"""The saga tables on each engine, and the names of each with its companions."""
_told: WeakKeyDictionary[Engine, set[str]] = WeakKeyDictionary()


def watch_for_lost_tables(engine: AsyncEngine, head: Table) -> None:
    """Have an error on this engine that says that a saga table, or a column, is missing say also what to do."""
    _watched.setdefault(engine.sync_engine, {})[head.name] = _words(table.name for table in tables_of(head))
    if not event.contains(engine.sync_engine, "handle_error", _look):
        event.listen(engine.sync_engine, "handle_error", _look)


def tell_of_lost_tables(engine: Engine, error: BaseException, statement: str) -> None:
    """Add a note to an error that says that a saga table, or a column of one, is missing; log the first one.

    Args:
        statement: The statement that has failed, or the name of the table that it was about.
    """
    if not is_of_a_missing_name(error):
        return
    said = str(getattr(error, "orig", None) or error).partition("\n")[0]
    for head, names in _watched.get(engine, {}).items():
        if names.search(said) or (_COLUMN.search(said) and names.search(statement)):
            _tell(engine, head, said, error)
            return


def _tell(engine: Engine, head: str, said: str, error: BaseException) -> None:
    advice = (
        f"The saga table {head} or a companion of it is missing, or lacks a column. Make the tables with "
        f"Base.metadata.create_all, or bring them up to date with {_command(head, None)}: docs/howto/migrations.md."
    )
    if advice not in getattr(error, "__notes__", ()):
        error.add_note(advice)
    if head not in (told := _told.setdefault(engine, set())):
        told.add(head)
        logger.error("The database answered: {}. {} This is told once.", said, advice)


def _look(context: ExceptionContext) -> None:
    if context.engine is not None:
        error = context.sqlalchemy_exception or context.original_exception
        tell_of_lost_tables(context.engine, error, context.statement or "")


def _words(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")


_COLUMN = _words(COLUMNS.c.keys())
