"""`saga db`: migrate the saga tables of an application that has no Alembic revisions of its own."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Connection

    from ..migrations import SagaTables

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

T = TypeVar("T")

_WHAT = """\
Migrate the tables of one saga model, and record in <table>_schema_version how far they have come. If your application
has Alembic revisions, call saga_orchestrator.migrations.upgrade() in one of them instead."""
_ACTIONS = {
    "upgrade": "bring the tables to the latest version, or up to --to",
    "downgrade": "bring the tables back to --to; 0 drops them, with every saga in them",
    "current": "show the version of the tables; exit code 1 if it is not the latest",
    "stamp": "record that the tables have the version --to already: create_all made them, or another migration",
    "sql": "print the SQL of an upgrade (or of a downgrade, if --to is less than --since), and connect to nothing",
}


def add_to(verbs: Verbs) -> None:
    """Describe the verb and its arguments."""
    parser = verbs.add_parser("db", help="migrate the saga tables", description=_WHAT)
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    for name, says in _ACTIONS.items():
        _describe(actions.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}."), name)


def _describe(parser: argparse.ArgumentParser, action: str) -> None:
    parser.add_argument(
        "--database-url",
        metavar="URL",
        default=os.environ.get("DATABASE_URL"),
        help="postgresql+asyncpg://user@host/name or sqlite+aiosqlite:///file.db (default: $DATABASE_URL)",
    )
    parser.add_argument("--table", required=True, help="the __tablename__ of the model with SagaStateMixin")
    parser.add_argument("--schema", help="the schema of the model, if it has one")
    if action == "sql":
        parser.add_argument("--since", type=int, default=0, metavar="N", help="the version to begin at (default: 0)")
    if action != "current":
        at_will = action in ("upgrade", "sql")
        latest = " (default: the latest)" if at_will else ""
        parser.add_argument("--to", type=int, required=not at_will, metavar="N", help=f"the version to end at{latest}")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the action and return its exit code."""
    from ..migrations import HEAD, sql

    url = _read(arguments.database_url)
    to: int = HEAD if getattr(arguments, "to", None) is None else arguments.to
    if arguments.action == "sql":
        print(sql(url.get_backend_name(), arguments.table, arguments.schema, since=arguments.since, to=to), end="")
        return 0
    if arguments.action == "current":
        return _show(arguments.table, _in_transaction(url, lambda connection: _look(_tables(connection, arguments))))
    before, after = _in_transaction(url, lambda connection: _act(_tables(connection, arguments), arguments.action, to))
    print(
        f"{arguments.table}: version {before} -> {after}" if before != after else f"{arguments.table}: version {after}"
    )
    return 0


def _tables(connection: Connection, arguments: argparse.Namespace) -> SagaTables:
    from ..migrations import SagaTables

    return SagaTables(connection, arguments.table, arguments.schema)


def _look(tables: SagaTables) -> tuple[int | None, int]:
    """Return the version that is recorded, and the version that the tables look like."""
    return tables.recorded(), tables.recognized()


def _show(table: str, versions: tuple[int | None, int]) -> int:
    """Print the version of the tables. Return 0 if it is the latest, else 1."""
    from ..migrations import HEAD

    recorded, recognized = versions
    version = recognized if recorded is None else recorded
    is_unrecorded = recorded is None and recognized > 0
    source = ", as its columns show; no version is recorded" if is_unrecorded else ""
    print(f"{table}: version {version}, the latest is {HEAD}{source}")
    if version in (recognized, *range(HEAD + 1, version + 1)):
        return 0 if version == HEAD else 1
    print(
        f"{table}: its columns are those of version {recognized}. If another migration has changed them, record it: "
        f"saga db stamp --table {table} --to {recognized}"
    )
    return 1


def _act(tables: SagaTables, action: str, to: int) -> tuple[int, int]:
    """Do it; return the version before and after."""
    before = tables.recorded() or 0
    if action == "upgrade":
        before = tables.upgrade(to)
    elif action == "downgrade":
        before = tables.downgrade(to)
    elif action == "stamp":
        tables.stamp(to)
    return before, tables.recorded() or 0


def _in_transaction(url: URL, act: Callable[[Connection], T]) -> T:
    """Do it in one transaction.

    Raises:
        MigrationError: The database cannot be reached, or refuses.
    """
    import asyncio

    from sqlalchemy.exc import SQLAlchemyError

    from ..migrations import MigrationError

    try:
        return _on_sqlite(url, act) if url.get_backend_name() == "sqlite" else asyncio.run(_on_postgresql(url, act))
    except (SQLAlchemyError, OSError) as error:
        raise MigrationError(str(getattr(error, "orig", None) or error)) from error


def _on_sqlite(url: URL, act: Callable[[Connection], T]) -> T:
    """Work without aiosqlite, whose thread may outlive a connection that failed, and then complains on its own."""
    from sqlalchemy import NullPool, create_engine

    with create_engine(url.set(drivername="sqlite"), poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver begins no transaction before DDL
        done = act(connection)
        connection.commit()
    return done


async def _on_postgresql(url: URL, act: Callable[[Connection], T]) -> T:
    from sqlalchemy import NullPool
    from sqlalchemy.ext.asyncio import create_async_engine

    async with create_async_engine(url, poolclass=NullPool).begin() as connection:
        return await connection.run_sync(act)


def _read(text: str | None) -> URL:
    """Return a database's address.

    Raises:
        MigrationError: It is none, or none of a database that sagas run on.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    from ..migrations import MigrationError

    if not text:
        raise MigrationError("Say which database: --database-url or $DATABASE_URL.")
    try:
        url = make_url(text)
    except ArgumentError:
        raise MigrationError(
            "--database-url is no database address; write postgresql+asyncpg://user@host/name."
        ) from None
    if url.drivername not in ("postgresql+asyncpg", "sqlite+aiosqlite"):
        raise MigrationError(
            f"--database-url names the driver '{url.drivername}'; sagas run on sqlite+aiosqlite:///file.db and on "
            "postgresql+asyncpg://user@host/name."
        )
    return url
