"""`saga db`: migrate the saga tables of an application that has no Alembic revisions of its own."""

from __future__ import annotations

import argparse
import os
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Connection

    from ..migrations import SagaTables

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

T = TypeVar("T")

_PATIENCE = timedelta(seconds=60)
_CUT_OFF = "57014"
_GRACE = 1.0
"""Seconds more than the server has: its own answer says more than its silence."""

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
    if action != "sql":
        parser.add_argument(
            "--timeout",
            type=_duration,
            default=_PATIENCE,
            metavar="SECONDS",
            help="how long it may take; after that, nothing has changed (default: 60)",
        )
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
        return _show(arguments.table, _in_transaction(arguments, url, _look))
    before, after = _in_transaction(arguments, url, lambda tables: _act(tables, arguments.action, to))
    print(
        f"{arguments.table}: version {before} -> {after}" if before != after else f"{arguments.table}: version {after}"
    )
    return 0


def _tables(connection: Connection, arguments: argparse.Namespace) -> SagaTables:
    from ..migrations import SagaTables

    return SagaTables(connection, arguments.table, arguments.schema, arguments.timeout)


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


def _in_transaction(arguments: argparse.Namespace, url: URL, act: Callable[[SagaTables], T]) -> T:
    """Do it in one transaction.

    Raises:
        MigrationError: The database cannot be reached, refuses, or takes too long.
    """
    import asyncio

    from sqlalchemy.exc import SQLAlchemyError

    from ..migrations import MigrationError

    seconds = arguments.timeout.total_seconds()

    def work(connection: Connection) -> T:
        return act(_tables(connection, arguments))

    try:
        if url.get_backend_name() == "sqlite":
            return _on_sqlite(url, seconds, work)
        return asyncio.run(_on_postgresql(url, seconds, work))
    except (SQLAlchemyError, OSError) as error:
        raise MigrationError(_explain(error, arguments.table, seconds)) from error


def _explain(error: Exception, table: str, seconds: float) -> str:
    """Return one line that says why the database did not do it, and what to do."""
    from ..errors import DatabaseTimeoutError
    from ..storage.database_errors import is_blocked, is_contention, sqlstate_of

    longer = "A larger --timeout allows more."
    if isinstance(error, DatabaseTimeoutError):
        return (
            f"The database did not answer within {seconds:g} s, so its connection was given up. "
            f"`saga db current --table {table}` shows whether anything has changed. {longer}"
        )
    if is_blocked(error) or is_contention(error):
        return (
            f"Another transaction held a lock on the tables of {table}, or on the whole database, for too long: "
            f"{seconds:g} s are allowed. Nothing has changed. End it, or try again when it is over. {longer}"
        )
    if sqlstate_of(error) == _CUT_OFF:
        return f"A statement took longer than {seconds:g} s, so the database ended it. Nothing has changed. {longer}"
    return str(getattr(error, "orig", None) or error) or type(error).__name__


def _on_sqlite(url: URL, seconds: float, act: Callable[[Connection], T]) -> T:
    """Work without aiosqlite, whose thread may outlive a connection that failed, and then complains on its own."""
    from sqlalchemy import NullPool, create_engine

    engine = create_engine(url.set(drivername="sqlite"), poolclass=NullPool, connect_args={"timeout": seconds})
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver begins no transaction before DDL
        done = act(connection)
        connection.commit()
    return done


async def _on_postgresql(url: URL, seconds: float, act: Callable[[Connection], T]) -> T:
    """Work within a limit of this side's too: the server's own limits say nothing when the network is gone."""
    from sqlalchemy import NullPool
    from sqlalchemy.ext.asyncio import create_async_engine

    from ..storage.limits import connect

    engine = create_async_engine(url, poolclass=NullPool)
    async with connect(engine, seconds + _GRACE) as (connection, _), connection.begin():
        return await connection.run_sync(act)


def _duration(text: str) -> timedelta:
    """Return seconds as a duration; argparse says which argument was wrong."""
    duration = timedelta(seconds=float(text))
    if duration <= timedelta(0):
        raise ValueError(text)
    return duration


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
