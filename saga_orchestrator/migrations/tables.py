"""Migrating without revisions: the database itself records how far the tables of a saga have come.

``<table>_schema_version`` has a row for each version that was applied. A migration is one transaction, and two that are
started at once take turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable, DropTable

from .direction import DIALECTS, HEAD, MigrationError, downgrade, limited, upgrade
from .recognition import recognize

if TYPE_CHECKING:
    from alembic.operations import Operations


class SagaTables:
    """The tables of one saga model in one database.

    Args:
        connection: In a transaction, which the caller commits.
        table: The `__tablename__` of the model with `SagaStateMixin`.
        schema: The model's schema, if it has one. It must exist.
        timeout: How long PostgreSQL may take for a statement, and wait for a lock; None leaves what the session says.
    """

    def __init__(
        self, connection: sa.Connection, table: str, schema: str | None = None, timeout: timedelta | None = None
    ) -> None:
        self.connection = connection
        self.table = table
        self.schema = schema
        self.timeout = timeout
        self._record = _record_of(table, schema)

    def current(self) -> int:
        """Return the version that is recorded, else the version that the tables look like; 0 if there are no tables."""
        recorded = self.recorded()
        return self.recognized() if recorded is None else recorded

    def recorded(self) -> int | None:
        """Return the version that ``<table>_schema_version`` holds. Return None if it holds no version."""
        if not self._has(self._record.name):
            return None
        version: int | None = self.connection.scalar(sa.select(sa.func.max(self._record.c.version)))
        return version

    def recognized(self) -> int:
        """Return the latest version whose tables and columns are there, whatever made them; 0 if there are no tables.

        Where two versions differ in no column of this database, the later one is returned.
        """
        return recognize(self.connection, self.table, self.schema)

    def upgrade(self, to: int = HEAD) -> int:
        """Bring the tables up to a version, unless they have it already; return the version that they had.

        Raises:
            MigrationError: The tables are newer, or are there without a record of their version.
        """
        with self._turn() as op:
            since = self._recorded_or_none_there()
            if since > to:
                raise MigrationError(f"{self.table} is at version {since} already, which is later than {to}.")
            if since < to:
                _walk(op, self._record, since, to)
        return since

    def downgrade(self, to: int) -> int:
        """Bring the tables back to a version, unless they have it already; return the version that they had.

        Raises:
            MigrationError: The tables are older, or newer than what this release of the library knows, or are there
                without a record of their version.
        """
        with self._turn() as op:
            since = self._recorded_or_none_there()
            if since < to:
                raise MigrationError(f"{self.table} is at version {since} only, which is earlier than {to}.")
            if since > to:
                _walk(op, self._record, since, to)
        return since

    def stamp(self, version: int) -> None:
        """Record that the tables have a version, without touching them: `create_all` made them, or another migration.

        Raises:
            MigrationError: There is no such version.
        """
        if not 0 <= version <= HEAD:
            raise MigrationError(f"There is no version {version}; the latest is {HEAD}.")
        with self._turn() as op:
            since = self.recorded() or 0
            if since != version:
                _enter(op, self._record, since, version)

    def _recorded_or_none_there(self) -> int:
        """Return the recorded version, or 0 if there are no tables.

        Raises:
            MigrationError: The tables are there, and their version is not recorded.
        """
        recorded = self.recorded() or 0
        if recorded == 0 and self._has(self.table):
            raise MigrationError(
                f"{self.table} is there, but {self._record.name} does not say at which version: it was made by "
                "create_all or by your own migrations. Go on with those, or record the version once with "
                f"`saga db stamp`. The tables look like version {self.recognized()}."
            )
        return recorded

    def _has(self, name: str) -> bool:
        return sa.inspect(self.connection).has_table(name, schema=self.schema)

    @contextmanager
    def _turn(self) -> Iterator[Operations]:
        """Wait for others who migrate the same tables. SQLite needs no more than its BEGIN IMMEDIATE."""
        op = _operations(self.connection)
        with limited(op, self.timeout):
            if self.connection.dialect.name == "postgresql":
                key = f"{self.schema or ''}.{self.table}"
                self.connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(key, 0))))
            yield op


def sql(dialect: str, table: str, schema: str | None = None, *, since: int = 0, to: int = HEAD) -> str:
    """Return the SQL of `SagaTables.upgrade` or `SagaTables.downgrade`, to be read, or run by hand.

    Raises:
        MigrationError: There is no such way, or the database is none that sagas run on.
    """
    if dialect not in DIALECTS:
        raise MigrationError(f"Sagas do not run on {dialect}; they do on {' and '.join(DIALECTS)}.")
    written = StringIO()
    with _alembic_is_needed():
        from alembic.migration import MigrationContext  # noqa: PLC0415 - an optional dependency
        from alembic.operations import Operations  # noqa: PLC0415
    options = {"as_sql": True, "output_buffer": written}
    op = Operations(MigrationContext.configure(dialect_name=dialect, dialect_opts=_PLAIN, opts=options))
    op.execute("BEGIN")
    _walk(op, _record_of(table, schema), since, to)
    op.execute("COMMIT")
    return written.getvalue()


def _walk(op: Operations, record: sa.Table, since: int, to: int) -> None:
    """Migrate, and record it."""
    move = upgrade if since < to else downgrade
    move(op, since=since, to=to, table=record.info["table"], schema=record.schema)
    _enter(op, record, since, to)


def _enter(op: Operations, record: sa.Table, since: int, to: int) -> None:
    """Bring the record from one version to another; at version 0 there is none."""
    if since == 0:
        op.execute(CreateTable(record))
    if to == 0:
        op.execute(DropTable(record))
        return
    for version in range(since + 1, to + 1):
        op.execute(record.insert().values(version=op.inline_literal(version)))
    if to < since:
        op.execute(record.delete().where(record.c.version > op.inline_literal(to)))


def _record_of(table: str, schema: str | None) -> sa.Table:
    name = f"{table}_schema_version"
    if len(name.encode()) > _LONGEST_NAME:
        raise MigrationError(f"The table name {table!r} is too long: {name!r} has more than {_LONGEST_NAME} bytes.")
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema=schema,
        info={"table": table},
    )


_PLAIN = {"paramstyle": "named"}
"""So that a percent sign is written once: nobody formats this SQL."""
_LONGEST_NAME = 63
"""PostgreSQL cuts longer names short without a word."""


def _operations(connection: sa.Connection) -> Operations:
    with _alembic_is_needed():
        from alembic.migration import MigrationContext  # noqa: PLC0415 - an optional dependency
        from alembic.operations import Operations  # noqa: PLC0415
    return Operations(MigrationContext.configure(connection))


@contextmanager
def _alembic_is_needed() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise MigrationError(
            "The saga tables are migrated by Alembic, which is missing. Install it: "
            "pip install 'saga-orchestrator[alembic]'"
        ) from None
