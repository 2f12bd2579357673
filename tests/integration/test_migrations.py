"""The tables of a saga, migrated by `saga_orchestrator.migrations` and by ``saga db``, on both databases."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from saga_orchestrator import BaseStep, SagaBuilder, SagaOrchestrator, SagaStateMixin, SagaStatus, migrations
from saga_orchestrator.cli import main
from saga_orchestrator.migrations import HEAD, MigrationError, SagaTables
from tests.support.proxy import proxy

CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def one_table() -> sa.MetaData:
    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"

    return Base.metadata


def two_tables_in_a_hurry() -> sa.MetaData:
    class Base(DeclarativeBase):
        metadata = sa.MetaData(naming_convention=CONVENTION)

    class Shared(Base, SagaStateMixin):
        __abstract__ = True

    class OrderSaga(Shared):
        __tablename__ = "Order Sagas"

    class RefundSaga(Shared):
        __tablename__ = "x" * 55

    return Base.metadata


def with_a_schema() -> sa.MetaData:
    class Base(DeclarativeBase):
        metadata = sa.MetaData(schema="sagas", naming_convention=CONVENTION)

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"

    class OtherSaga(Base, SagaStateMixin):
        __tablename__ = "select Or"
        __table_args__ = {"schema": "Other"}  # noqa: RUF012 - as SQLAlchemy wants it

    return Base.metadata


MODELS: list[Callable[[], sa.MetaData]] = [one_table, two_tables_in_a_hurry]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
    finally:
        await engine.dispose()


def sagas_of(metadata: sa.MetaData) -> list[sa.Table]:
    names = {(table.schema, table.name) for table in metadata.tables.values()}
    return [table for table in metadata.sorted_tables if (table.schema, f"{table.name}_history") in names]


def operations(connection: sa.Connection, metadata: sa.MetaData) -> Operations:
    return Operations(MigrationContext.configure(connection, opts={"target_metadata": metadata}))


def migrate(connection: sa.Connection, metadata: sa.MetaData) -> None:
    for table in sagas_of(metadata):
        op = operations(connection, metadata)
        migrations.upgrade(op, since=0, to=HEAD, table=table.name, schema=table.schema)


def unmigrate(connection: sa.Connection, metadata: sa.MetaData) -> None:
    for table in sagas_of(metadata):
        op = operations(connection, metadata)
        migrations.downgrade(op, since=HEAD, to=0, table=table.name, schema=table.schema)


def differences(connection: sa.Connection, metadata: sa.MetaData) -> list[Any]:
    options = {"compare_type": True, "compare_server_default": True, "include_schemas": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def portrait(connection: sa.Connection) -> set[str]:
    """Everything that the database knows about its tables, down to the conditions that Alembic does not compare."""
    if connection.dialect.name == "sqlite":
        found = connection.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        lines = [(name, line.rstrip(", ")) for name, statement in found for line in statement.splitlines()]
        added = re.compile(r", (?=\w+ [A-Z]+$)")  # SQLite writes a column that is added behind the last one
        return {f"{name}: {fact.strip()}" for name, line in lines for fact in added.split(line)}
    columns = "table_schema, table_name, column_name, udt_name, character_maximum_length, is_nullable, column_default"
    tables = "pg_class AS r JOIN pg_namespace AS n ON n.oid = r.relnamespace"
    constraints = (
        f"(SELECT c.oid, conname, relname, nspname FROM pg_constraint AS c, {tables} WHERE conrelid = r.oid) AS c"
    )
    queries = (
        f"SELECT {columns} FROM information_schema.columns WHERE table_schema",
        f"SELECT nspname, relname, conname, pg_get_constraintdef(oid) FROM {constraints} WHERE nspname",
        "SELECT indexdef FROM pg_indexes WHERE schemaname",
        f"SELECT nspname, relname, reloptions FROM {tables} WHERE reloptions IS NOT NULL AND nspname",
    )
    theirs = "('pg_catalog', 'information_schema', 'pg_toast')"
    return {str(tuple(row)) for query in queries for row in connection.execute(sa.text(f"{query} NOT IN {theirs}"))}


# --- the same tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
async def test_migrated_tables_are_those_that_create_all_makes(
    model: Callable[[], sa.MetaData], database_url: str
) -> None:
    """Columns, defaults, constraints and their names, conditions of the indexes, and storage options are the same."""
    metadata = model()
    async with opened(database_url) as connection:
        await connection.run_sync(metadata.create_all)
        created = await connection.run_sync(portrait)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(migrate, metadata)
        migrated = await connection.run_sync(portrait)

    assert migrated == created
    assert any("never_stranded" in fact for fact in created)


async def test_migrated_tables_in_a_schema_are_those_that_create_all_makes(postgres_url: str) -> None:
    """A schema, of the metadata or of one table, changes nothing but where the tables are."""
    metadata = with_a_schema()
    async with opened(postgres_url) as connection:
        for schema in ("sagas", "Other"):
            await connection.execute(sa.schema.CreateSchema(schema))
        await connection.run_sync(metadata.create_all)
        created = await connection.run_sync(portrait)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(migrate, metadata)

        assert await connection.run_sync(portrait) == created
        assert await connection.run_sync(differences, metadata) == []
        await connection.run_sync(unmigrate, metadata)
        assert await connection.run_sync(portrait) == set()


@pytest.mark.parametrize("model", MODELS)
async def test_autogenerate_finds_no_difference(model: Callable[[], sa.MetaData], database_url: str) -> None:
    """After the latest version there is nothing left for Alembic to propose, and nothing is left after the way down."""
    metadata = model()
    async with opened(database_url) as connection:
        await connection.run_sync(migrate, metadata)

        assert await connection.run_sync(differences, metadata) == []

        await connection.run_sync(unmigrate, metadata)
        assert await connection.run_sync(portrait) == set()


async def test_the_users_own_columns_are_the_users_own_migration(database_url: str) -> None:
    """Only what the user added to the model is proposed; once it is migrated, nothing is."""

    class Base(DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"

        id: Mapped[str] = mapped_column(sa.String(50), primary_key=True)

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"
        __table_args__ = (sa.Index("ix_tenant", "tenant", "saga_name"),)

        tenant: Mapped[str] = mapped_column(sa.String(50), server_default="home")
        order_id: Mapped[str | None] = mapped_column(sa.String(50))

    def add_own(connection: sa.Connection) -> None:
        op = operations(connection, Base.metadata)
        op.create_table("orders", sa.Column("id", sa.String(50), primary_key=True))
        op.add_column("order_saga", sa.Column("tenant", sa.String(50), nullable=False, server_default="home"))
        op.add_column("order_saga", sa.Column("order_id", sa.String(50)))
        op.create_index("ix_tenant", "order_saga", ["tenant", "saga_name"])

    async with opened(database_url) as connection:
        await connection.run_sync(migrate, Base.metadata)
        proposed = await connection.run_sync(differences, Base.metadata)
        await connection.run_sync(add_own)

        assert await connection.run_sync(differences, Base.metadata) == []
    kinds = sorted(difference[0] for difference in proposed)
    assert kinds == ["add_column", "add_column", "add_index", "add_table"]


# --- what the tables are for -----------------------------------------------------------------------------------------


class Nothing(BaseModel):
    pass


class Noop(BaseStep[Nothing, Nothing]):
    async def execute(self, inp: Nothing) -> Nothing:
        return inp


async def test_a_saga_runs_on_migrated_tables(database_url: str) -> None:
    """The engine finds everything that it needs, in the user's own model with a column of its own."""

    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"

        tenant: Mapped[str | None] = mapped_column(sa.String(50))

    async with opened(database_url) as connection:
        await connection.run_sync(migrate, Base.metadata)
        await connection.execute(sa.text("ALTER TABLE order_saga ADD COLUMN tenant VARCHAR(50)"))
    engine = create_async_engine(database_url)
    sessions = async_sessionmaker(engine)
    builder = SagaBuilder()
    builder.add_step(step=Noop(), input_map=lambda ctx: Nothing())
    async with SagaOrchestrator[OrderSaga](model_class=OrderSaga, session_maker=sessions) as orchestrator:
        orchestrator.register("order", builder.build())
        saga_id = await orchestrator.start(
            saga_name="order", initial_data={}, aggregation_id="1", values={"tenant": "home"}
        )
    async with sessions() as session:
        saga = await session.get_one(OrderSaga, saga_id)
    await engine.dispose()

    assert (saga.status, saga.tenant) == (SagaStatus.COMPLETED, "home")


INSERT = (
    "INSERT INTO order_saga (id, aggregation_id, trace_id, saga_name, fingerprint, status, state, context, awaiting) "
    "VALUES ('{id}', '{order}', 't', 's', 'f', '{status}', '{{}}', '{{}}', {awaiting})"
)
FIRST, SECOND = "00000000000000000000000000000001", "00000000000000000000000000000002"


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        ({"status": "RUNNING", "awaiting": "NULL"}, "never_stranded"),
        ({"status": "TIRED", "awaiting": "'operator'"}, "ck_order_saga_status"),
        ({"status": "STUCK", "awaiting": "'operator'", "order": "1"}, "aggregation"),
    ],
)
async def test_migrated_tables_refuse_a_wrong_row(row: dict[str, str], refusal: str, database_url: str) -> None:
    """A stranded saga, an unknown status, and a second active saga of one aggregate cannot be written."""
    async with opened(database_url) as connection:
        await connection.run_sync(migrate, one_table())
        await connection.exec_driver_sql(
            INSERT.format(id=FIRST, order="1", status="SUSPENDED", awaiting="'retry'"),
        )
    with pytest.raises(IntegrityError, match=refusal):
        async with opened(database_url) as connection:
            await connection.exec_driver_sql(INSERT.format(**{"id": SECOND, "order": "2", **row}))


async def test_alembics_batch_mode_keeps_what_makes_wrong_rows_unrepresentable(sqlite_url: str) -> None:
    """On SQLite a table is copied to change a column: its checks and partial indexes come along."""
    metadata = one_table()

    def alter(connection: sa.Connection) -> None:
        with operations(connection, metadata).batch_alter_table("order_saga", recreate="always") as batch:
            batch.alter_column("trace_id", type_=sa.String(500))

    async with opened(sqlite_url) as connection:
        await connection.run_sync(migrate, metadata)
        before = await connection.run_sync(portrait)
        await connection.run_sync(alter)
        after = await connection.run_sync(portrait)

    kept = {fact for fact in before if "CHECK" in fact or " INDEX " in fact}
    assert len(kept) == 10
    assert kept <= after


EXACT = '{"to": "z", "at":2.0, "big":1e22, "nil":-0.0}'


async def test_payloads_keep_their_bytes_from_version_2_on(database_url: str) -> None:
    """The first version's JSONB reordered keys and rewrote numbers; its rows come along, up and down again."""
    metadata, row = one_table(), INSERT.format(id=FIRST, order="1", status="SUSPENDED", awaiting="'retry'")

    def move(connection: sa.Connection, way: Callable[..., None], since: int, to: int) -> None:
        way(operations(connection, metadata), since=since, to=to, table="order_saga")

    async with opened(database_url) as connection:

        async def context() -> Any:
            return (await connection.exec_driver_sql("SELECT CAST(context AS TEXT) FROM order_saga")).scalar_one()

        await connection.run_sync(move, migrations.upgrade, 0, 1)
        await connection.exec_driver_sql(row)
        await connection.run_sync(move, migrations.upgrade, 1, 2)
        assert await context() == "{}"
        await connection.execute(sa.text("UPDATE order_saga SET context = '{}'".format(EXACT.replace(":", "\\:"))))
        assert await context() == EXACT
        await connection.run_sync(move, migrations.downgrade, 2, 1)
        assert json.loads(await context()) == json.loads(EXACT)
        await connection.run_sync(move, migrations.downgrade, 1, 0)
        assert await connection.run_sync(portrait) == set()


# --- wrong orders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("since", "to"), [(0, HEAD + 1), (1, 0), (0, 0), (-1, 1), (HEAD, HEAD)])
async def test_there_is_no_such_way_up(since: int, to: int, sqlite_url: str) -> None:
    """Versions in the wrong order, or that do not exist, are refused and nothing is created."""
    async with opened(sqlite_url) as connection:

        def up(sync: sa.Connection) -> None:
            migrations.upgrade(operations(sync, one_table()), since=since, to=to, table="order_saga")

        with pytest.raises(MigrationError, match=f"no way up from version {since} to version {to}"):
            await connection.run_sync(up)
        assert await connection.run_sync(portrait) == set()


@pytest.mark.parametrize(("since", "to"), [(HEAD + 1, 0), (0, 1), (0, 0), (1, -1)])
async def test_there_is_no_such_way_down(since: int, to: int, sqlite_url: str) -> None:
    """Versions in the wrong order, or that do not exist, are refused and nothing is dropped."""
    async with opened(sqlite_url) as connection:
        await connection.run_sync(migrate, one_table())
        before = await connection.run_sync(portrait)

        def down(sync: sa.Connection) -> None:
            migrations.downgrade(operations(sync, one_table()), since=since, to=to, table="order_saga")

        with pytest.raises(MigrationError, match=f"no way down from version {since} to version {to}"):
            await connection.run_sync(down)
        assert await connection.run_sync(portrait) == before


def test_a_database_that_sagas_do_not_run_on_is_refused() -> None:
    """Elsewhere the partial unique indexes would silently be whole ones, and every aggregate had one saga for ever."""
    op = Operations(MigrationContext.configure(dialect_name="mysql", opts={"as_sql": True}))

    with pytest.raises(MigrationError, match="do not run on mysql"):
        migrations.upgrade(op, since=0, to=1, table="order_saga")
    with pytest.raises(MigrationError, match="do not run on mysql"):
        migrations.sql("mysql", "order_saga")


# --- saga db ---------------------------------------------------------------------------------------------------------


def saga_db(action: str, url: str, *more: str) -> int:
    return main(["db", action, "--database-url", url, "--table", "order_saga", *more])


def run_async(url: str, act: Callable[..., Any], *arguments: Any) -> Any:
    async def run() -> Any:
        async with opened(url) as connection:
            return await connection.run_sync(act, *arguments)

    return asyncio.run(run())


def test_saga_db_goes_up_and_down(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each action says from where to where, a second time does nothing, and at the end nothing is left."""
    codes = [
        saga_db("current", database_url),
        saga_db("upgrade", database_url),
        saga_db("upgrade", database_url),
        saga_db("current", database_url),
    ]
    migrated = run_async(database_url, portrait)
    codes += [saga_db("downgrade", database_url, "--to", "0"), saga_db("downgrade", database_url, "--to", "0")]

    assert codes == [1, 0, 0, 0, 0, 0]
    assert capsys.readouterr().out.splitlines() == [
        f"order_saga: version 0, the latest is {HEAD}",
        f"order_saga: version 0 -> {HEAD}",
        f"order_saga: version {HEAD}",
        f"order_saga: version {HEAD}, the latest is {HEAD}",
        f"order_saga: version {HEAD} -> 0",
        "order_saga: version 0",
    ]
    assert any("never_stranded" in fact for fact in migrated)
    assert run_async(database_url, portrait) == set()


def test_saga_db_prints_the_sql_that_it_would_run(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run by hand, the SQL leaves what the action leaves, the recorded version included, both up and down."""

    async def run_script(script: str) -> None:
        engine = create_async_engine(database_url)
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            await (driver.executescript(script) if engine.dialect.name == "sqlite" else driver.execute(script))
        await engine.dispose()

    assert saga_db("sql", database_url) == 0
    up = capsys.readouterr().out
    assert saga_db("sql", database_url, "--since", str(HEAD), "--to", "0") == 0
    down = capsys.readouterr().out

    asyncio.run(run_script(up))
    by_hand = run_async(database_url, portrait)
    assert saga_db("current", database_url) == 0
    asyncio.run(run_script(down))
    assert run_async(database_url, portrait) == set()
    assert saga_db("upgrade", database_url) == 0
    assert {" ".join(fact.split()) for fact in run_async(database_url, portrait)} == by_hand


def test_saga_db_does_not_touch_tables_that_it_did_not_make(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables of create_all are left alone with a word on what to do; stamped once, they are migrated like others."""
    run_async(database_url, one_table().create_all)

    assert saga_db("upgrade", database_url) == 2
    assert "made by create_all or by your own migrations" in capsys.readouterr().err
    assert [saga_db("stamp", database_url, "--to", str(HEAD)), saga_db("upgrade", database_url)] == [0, 0]
    assert saga_db("downgrade", database_url, "--to", "0") == 0
    assert run_async(database_url, portrait) == set()


UNRECORDED = ", as its columns show; no version is recorded"


@pytest.mark.parametrize("made_by", ["create_all", "a revision of Alembic"])
def test_saga_db_shows_the_version_of_tables_that_it_did_not_make(
    made_by: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables themselves tell their version; columns of the user's own make no difference."""
    make = one_table().create_all if made_by == "create_all" else partial(migrate, metadata=one_table())
    run_async(database_url, make)
    own_column = "ALTER TABLE order_saga ADD COLUMN tenant VARCHAR(50)"
    run_async(database_url, lambda connection: connection.exec_driver_sql(own_column))

    assert saga_db("current", database_url) == 0
    assert capsys.readouterr().out == f"order_saga: version {HEAD}, the latest is {HEAD}{UNRECORDED}\n"


@pytest.mark.parametrize("version", range(1, HEAD + 1))
def test_saga_db_recognizes_each_version_by_its_columns(version: int, database_url: str) -> None:
    """Tables of an older version are not taken for the latest, unless no column tells the two apart."""

    def look(connection: sa.Connection) -> tuple[int, int]:
        columns = {}
        for number in range(1, HEAD + 1):
            op = operations(connection, one_table())
            migrations.upgrade(op, since=number - 1, to=number, table="order_saga")
            columns[number] = {fact for fact in portrait(connection) if "INDEX" not in fact}
            if number == version:
                recognized = SagaTables(connection, "order_saga").current()
        same = [number for number, facts in columns.items() if facts == columns[version]]
        return recognized, max(same)

    recognized, expected = run_async(database_url, look)
    assert recognized == expected


def test_saga_db_tells_when_the_record_and_the_tables_disagree(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that says more than the tables have is shown as wrong, and what would put it right."""
    saga_db("upgrade", database_url)
    run_async(database_url, lambda connection: connection.exec_driver_sql("DROP TABLE order_saga_route"))
    capsys.readouterr()

    assert saga_db("current", database_url) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"order_saga: version {HEAD}, the latest is {HEAD}"
    assert f"its columns are those of version {HEAD - 1}" in said[1]


def test_saga_db_drops_no_tables_that_it_did_not_make(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a record there is no way down either."""
    run_async(database_url, one_table().create_all)
    before = run_async(database_url, portrait)

    assert saga_db("downgrade", database_url, "--to", "0") == 2
    assert f"The tables look like version {HEAD}." in capsys.readouterr().err
    assert run_async(database_url, portrait) == before


def test_saga_db_knows_a_schema(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables and the record of their version are both in the schema of the model."""
    assert saga_db("upgrade", postgres_url, "--schema", "sagas") == 2
    assert 'schema "sagas" does not exist' in capsys.readouterr().err
    run_async(postgres_url, lambda connection: connection.execute(sa.schema.CreateSchema("sagas")))

    assert saga_db("upgrade", postgres_url, "--schema", "sagas") == 0
    schemas = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name LIKE 'order%'"
    found = run_async(postgres_url, lambda connection: sorted(connection.execute(sa.text(schemas)).all()))
    assert found == [
        ("sagas", "order_saga"),
        ("sagas", "order_saga_history"),
        ("sagas", "order_saga_inbox"),
        ("sagas", "order_saga_route"),
        ("sagas", "order_saga_schema_version"),
    ]


def test_a_migration_is_done_wholly_or_not_at_all(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """When the last statement fails, the tables that were created before it are gone again."""
    run_async(
        database_url, lambda connection: connection.exec_driver_sql("CREATE TABLE order_saga_history (id INTEGER)")
    )
    before = run_async(database_url, portrait)

    assert saga_db("upgrade", database_url) == 2
    assert "order_saga_history" in capsys.readouterr().err
    assert run_async(database_url, portrait) == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["upgrade", "--to", "99"], "no way up from version 0 to version 99"),
        (["downgrade", "--to", "1"], "is at version 0 only"),
        (["stamp", "--to", "99"], "There is no version 99"),
        (["sql", "--since", str(HEAD)], "no way"),
        (["upgrade", "--table", "x" * 49], "too long"),
        (["upgrade", "--database-url", "nowhere"], "no database address"),
        (["upgrade", "--database-url", "mysql+aiomysql://host/name"], "names the driver 'mysql+aiomysql'"),
        (["upgrade", "--database-url", ""], "Say which database"),
        (["current", "--database-url", "postgresql+asyncpg://nobody@127.0.0.1:1/none"], "Connect call failed"),
        (["current", "--database-url", "sqlite+aiosqlite:////no/such/folder/saga.db"], "unable to open"),
    ],
)
def test_saga_db_says_why_it_cannot(
    arguments: list[str], complaint: str, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with code 2 and one line, never with a traceback."""
    code = saga_db(arguments[0], sqlite_url, *arguments[1:])

    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("saga db: ")
    assert complaint in said


def test_saga_db_does_not_wait_for_a_lock_for_ever(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says that another transaction holds the tables, and changes nothing."""
    saga_db("upgrade", database_url, "--to", "1")

    async def upgrade_meanwhile() -> int:
        async with opened(database_url) as connection:
            await connection.exec_driver_sql("DELETE FROM order_saga")
            return await asyncio.to_thread(saga_db, "upgrade", database_url, "--timeout", "0.2")

    capsys.readouterr()
    assert asyncio.run(upgrade_meanwhile()) == 2
    assert "Another transaction held a lock on the tables of order_saga" in capsys.readouterr().err
    assert saga_db("current", database_url) == 1
    assert "order_saga: version 1" in capsys.readouterr().out


async def test_saga_db_does_not_wait_for_silence_for_ever(
    postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network is gone, with or without a connection; the command ends and says what to look at."""
    url = sa.make_url(postgres_url)
    for trap in (b"", b"order_saga"):
        async with proxy("127.0.0.1", url.port or 5432) as line:
            behind = url.set(port=line.port).render_as_string(hide_password=False)
            if trap:
                line.trap = trap
            else:
                line.fall_silent()
            assert await asyncio.to_thread(saga_db, "upgrade", behind, "--timeout", "0.2") == 2
        said = capsys.readouterr().err
        assert "The database did not answer within 0.2 s" in said
        assert "saga db current --table order_saga" in said


async def test_a_migration_within_a_limit_leaves_the_callers_limits_alone(postgres_url: str) -> None:
    """The limits are those of the migration: what the caller does afterwards in the transaction has the session's."""
    async with opened(postgres_url) as connection:
        await connection.exec_driver_sql("SET statement_timeout = 54321")
        await connection.run_sync(lambda sync: SagaTables(sync, "order_saga", timeout=timedelta(seconds=30)).upgrade())
        assert (await connection.exec_driver_sql("SHOW statement_timeout")).scalar() == "54321ms"
        assert (await connection.exec_driver_sql("SHOW lock_timeout")).scalar() == "0"


@pytest.mark.parametrize("timeout", [timedelta(0), 5])
def test_a_limit_of_a_migration_is_a_duration(timeout: Any, postgres_url: str) -> None:
    """Anything else is refused before a statement is sent."""
    with pytest.raises(MigrationError, match="give it a timedelta longer than 0"):
        run_async(postgres_url, lambda sync: SagaTables(sync, "order_saga", timeout=timeout).upgrade())


def test_saga_db_leaves_the_tables_of_a_newer_release_alone(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An old release that is deployed again neither breaks nor drops what it does not know."""
    saga_db("upgrade", database_url)
    later = f"INSERT INTO order_saga_schema_version (version) VALUES ({HEAD + 1})"
    run_async(database_url, lambda connection: connection.exec_driver_sql(later))

    assert [saga_db("upgrade", database_url), saga_db("downgrade", database_url, "--to", "0")] == [2, 2]
    said = capsys.readouterr().err.splitlines()
    assert f"at version {HEAD + 1} already, which is later than {HEAD}" in said[0]
    assert f"no way down from version {HEAD + 1}" in said[1]


async def test_two_processes_that_migrate_at_once_take_turns(database_url: str) -> None:
    """The second waits for the first, and then finds nothing to do."""
    engines: list[AsyncEngine] = [create_async_engine(database_url) for _ in range(2)]

    async def upgrade(engine: AsyncEngine) -> int:
        async with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            return await connection.run_sync(lambda sync: SagaTables(sync, "order_saga").upgrade())

    since = await asyncio.gather(*(upgrade(engine) for engine in engines))
    for engine in engines:
        await engine.dispose()

    assert sorted(since) == [0, HEAD]


# --- Alembic is optional ---------------------------------------------------------------------------------------------

NO_ALEMBIC = """
import sys
import saga_orchestrator, saga_orchestrator.migrations, saga_orchestrator.cli
assert not [name for name in sys.modules if name.split(".")[0] == "alembic"], "imported"
sys.modules["alembic"] = None
sys.exit(saga_orchestrator.cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("action", ["upgrade", "sql"])
def test_without_alembic_only_migrating_is_missing(action: str, sqlite_url: str) -> None:
    """The library imports without Alembic, and the command that needs it says what to install."""
    command = [sys.executable, "-c", NO_ALEMBIC, "db", action, "--database-url", sqlite_url, "--table", "order_saga"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "saga db: The saga tables are migrated by Alembic, which is missing. Install it: "
        "pip install 'saga-orchestrator[alembic]'\n"
    )


def test_without_alembic_the_version_is_shown(sqlite_url: str) -> None:
    """`saga db current` only reads, so it does not need Alembic."""
    run_async(sqlite_url, one_table().create_all)
    command = [sys.executable, "-c", NO_ALEMBIC, "db", "current", "--database-url", sqlite_url, "--table", "order_saga"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"order_saga: version {HEAD}, the latest is {HEAD}")
