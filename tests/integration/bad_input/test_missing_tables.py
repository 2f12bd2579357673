"""Tables that are missing, or are of another version: every door says so, and a transaction of the caller's goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from saga_orchestrator import SagaOrchestrator, SagaStateMixin, SagaWorker, migrations
from saga_orchestrator.errors import DatabaseTimeoutError, SagaSchemaError
from saga_orchestrator.storage.schema_check import tables_of
from saga_orchestrator.storage.store import SagaStore
from saga_orchestrator.testing import MemoryStore
from tests.regressions.scene import ORDER, Base, OneWay, OrderSaga, Scene, admin_of, saga
from tests.support import logs
from tests.support.sagas import soon

SOME = UUID(int=1)
MAKE = r"Base\.metadata\.create_all.*saga db upgrade --table order_saga"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Errors that the library logs."""
    with logs.logged("ERROR") as lines:
        yield lines


def _doors(orchestrator: SagaOrchestrator[OrderSaga]) -> dict[str, Callable[[], Any]]:
    admin = admin_of(orchestrator)
    return {
        "start": partial(orchestrator.start, **ORDER),
        "start_once": partial(orchestrator.start_once, **ORDER),
        "run": partial(orchestrator.run, **ORDER),
        "run_due": orchestrator.run_due,
        "signal": partial(orchestrator.signal, "paid", aggregation_id="o-1"),
        "start_or_signal": partial(orchestrator.start_or_signal, "paid", start=ORDER),
        "notify": partial(orchestrator.notify, saga_id=SOME, token=SOME),
        "resume": partial(orchestrator.resume, SOME),
        "get_snapshot": partial(orchestrator.get_snapshot, SOME),
        "result": partial(orchestrator.result, SOME),
        "watch": lambda: anext(orchestrator.watch(SOME)),
        "get_saga": partial(admin.get_saga, SOME),
        "list_sagas": admin.list_sagas,
        "dirty_sagas": admin.dirty_sagas,
        "dirty_state": partial(admin.dirty_state, SOME),
        "purge": partial(admin.purge, older_than=timedelta(days=1)),
        "retry_step": partial(admin.retry_step, SOME),
        "skip_step": partial(admin.skip_step, SOME, step_id="a"),
        "abort": partial(admin.abort, SOME),
        "pause": partial(admin.pause, SOME),
        "execute_compensation": partial(admin.execute_compensation, SOME, "NOOP"),
        "worker": SagaWorker(orchestrator).run,
    }


async def _drop(scene: Scene, *names: str) -> None:
    tables = [table for table in tables_of(OrderSaga.__table__) if not names or table.name in names]  # type: ignore[arg-type]
    async with scene.engine.begin() as connection:
        await connection.run_sync(partial(Base.metadata.drop_all, tables=tables))


async def _make(scene: Scene) -> None:
    async with scene.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def _make_old(scene: Scene) -> None:
    """Make the tables as version 1 had them."""

    def up(connection: sa.Connection) -> None:
        migrations.upgrade(Operations(MigrationContext.configure(connection)), since=0, to=1, table="order_saga")

    await _drop(scene)
    async with scene.engine.begin() as connection:
        await connection.run_sync(up)


async def test_every_door_says_that_tables_are_missing(scene: Scene, ledger: list[str]) -> None:
    """It was an error of the driver's at most doors, and the worker went on for ever."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    await _drop(scene)
    for door in _doors(orchestrator).values():
        with pytest.raises(SagaSchemaError, match=rf"^The saga table order_saga is missing\. .*{MAKE}") as raised:
            await soon(door())
        assert raised.value.table == "order_saga"


async def test_every_door_says_that_tables_are_old(scene: Scene, ledger: list[str]) -> None:
    """Tables of version 1 keep payloads otherwise and lack a column; most doors took them."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    await _make_old(scene)
    lack = r"its column 'context' is jsonb and not json|it has no column 'sent_at'"
    for door in _doors(orchestrator).values():
        with pytest.raises(
            SagaSchemaError, match=rf"of another version of this library: ({lack})\. .*changes no table"
        ):
            await soon(door())
    assert ledger == []


@pytest.mark.parametrize("name", [table.name for table in tables_of(OrderSaga.__table__)[1:]])  # type: ignore[arg-type]
async def test_a_companion_that_is_missing_is_named(scene: Scene, name: str) -> None:
    """The saga table alone is not enough."""
    await _drop(scene, name)
    with pytest.raises(SagaSchemaError, match=f"The saga table {name} is missing"):
        await scene.orchestrator().run_due()


async def test_each_column_of_the_engine_is_missed(scene: Scene) -> None:
    """One of the application's own is not: its migration may come later."""
    await scene.sql("ALTER TABLE order_saga ADD COLUMN tenant VARCHAR(20)")
    await scene.orchestrator().run_due()
    await scene.sql("ALTER TABLE order_saga DROP COLUMN trace_id")
    with pytest.raises(SagaSchemaError, match=r"order_saga is of another version.*has no column 'trace_id'"):
        await scene.orchestrator().run_due()


@pytest.mark.parametrize("door", ["start", "signal", "start_or_signal"])
@pytest.mark.parametrize("are_old", [False, True])
async def test_a_callers_transaction_outlives_the_check(
    scene: Scene, ledger: list[str], door: str, are_old: bool
) -> None:
    """Its connection is asked, and no other; what it had written is committed by the caller."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    await (_make_old(scene) if are_old else _drop(scene))
    await scene.sql("DROP TABLE IF EXISTS receipt")
    await scene.sql("CREATE TABLE receipt (n INTEGER)")
    taken: list[object] = []
    event.listen(scene.engine.sync_engine, "checkout", lambda *_: taken.append(1))
    async with scene.sessions() as session:
        await session.execute(text("INSERT INTO receipt VALUES (1)"))
        with pytest.raises(SagaSchemaError):
            await _doors(orchestrator)[door].func(*_given(door), **_said(door), session=session)
        await session.execute(text("INSERT INTO receipt VALUES (2)"))
        await session.commit()
    assert len(taken) == 1
    assert [row.n for row in await scene.sql("SELECT n FROM receipt ORDER BY n")] == [1, 2]
    await scene.sql("DROP TABLE receipt")


def _given(door: str) -> tuple[Any, ...]:
    return () if door == "start" else ("paid",)


def _said(door: str) -> dict[str, Any]:
    return {"start": ORDER, "signal": {"aggregation_id": "o-1"}, "start_or_signal": {"start": ORDER}}[door]


async def test_tables_that_are_made_later_are_found(scene: Scene, ledger: list[str]) -> None:
    """A process may be up before its tables are."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    await _drop(scene)
    with pytest.raises(SagaSchemaError):
        await orchestrator.start(**ORDER)
    await _make(scene)
    await orchestrator.start(**ORDER)
    assert ledger == ["a"]


async def test_tables_are_asked_for_once(scene: Scene, ledger: list[str]) -> None:
    """Many who come at the same time share one query, and later ones need none."""
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "pragma_table_info" in statement or "pg_catalog.pg_attribute" in statement:
            asked.append(statement)

    event.listen(scene.engine.sync_engine, "before_cursor_execute", note)
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    await asyncio.gather(*(orchestrator.start(**ORDER | {"aggregation_id": str(n)}) for n in range(20)))
    async with scene.sessions.begin() as session:
        await orchestrator.signal("paid", aggregation_id="0", session=session)
    await admin_of(orchestrator).list_sagas()
    assert len(asked) == 1


async def test_a_database_that_is_away_gives_no_verdict(
    scene: Scene, ledger: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next use asks again."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))

    async def silent(*_: Any) -> None:
        raise DatabaseTimeoutError(1)

    with monkeypatch.context() as patch:
        patch.setattr(SagaStore, "check_tables", silent)
        with pytest.raises(DatabaseTimeoutError):
            await orchestrator.start(**ORDER)
    await _drop(scene)
    with pytest.raises(SagaSchemaError):
        await orchestrator.start(**ORDER)


async def test_a_worker_outlives_a_database_that_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again; when the tables prove to be missing, it ends."""
    orchestrator = scene.orchestrator()
    await _drop(scene)
    real, looks = SagaStore.check_tables, 0

    async def away_at_first(store: SagaStore, session: Any = None) -> None:
        nonlocal looks
        looks += 1
        if looks <= 2:
            raise ConnectionRefusedError
        await real(store, session)

    monkeypatch.setattr(SagaStore, "check_tables", away_at_first)
    with pytest.raises(SagaSchemaError):
        await soon(SagaWorker(orchestrator, poll_interval=timedelta(milliseconds=1)).run())


async def test_tables_that_are_lost_are_explained(scene: Scene, ledger: list[str], logged: list[str]) -> None:
    """The error is the database's own; the note on it is ours, and is logged once."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    await orchestrator.start(**ORDER)
    await _drop(scene)
    doors = _doors(orchestrator)
    del doors["worker"]  # the tables may come back, and it goes on
    for door in doors.values():
        with pytest.raises(DBAPIError) as raised:
            await soon(door())
        assert "The saga table order_saga or a companion of it is missing" in raised.value.__notes__[-1]
    assert len([line for line in logged if "a companion of it is missing" in line]) == 1
    await _make(scene)
    await orchestrator.start(**ORDER)
    assert ledger == ["a", "a"]


async def test_a_column_that_is_lost_is_explained(scene: Scene, ledger: list[str], logged: list[str]) -> None:
    """Also where the engine speaks to the driver itself."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    await orchestrator.run_due()
    await scene.sql("ALTER TABLE order_saga DROP COLUMN trace_id")
    with pytest.raises(DBAPIError) as raised:
        await orchestrator.start(**ORDER)
    assert "or lacks a column" in raised.value.__notes__[-1]
    assert len(logged) == 1


async def test_what_else_is_missing_is_not_explained(scene: Scene, ledger: list[str], logged: list[str]) -> None:
    """A table of the application's, in a statement beside the sagas, and a column of such a table."""
    await scene.orchestrator(saga(OneWay("a", ledger))).run_due()
    for statement in (
        "SELECT * FROM customer JOIN order_saga ON true",
        "SELECT * FROM my_order_saga",
        "SELECT discount FROM order_saga",
    ):
        with pytest.raises(DBAPIError) as raised:
            await scene.sql(statement)
        assert not hasattr(raised.value, "__notes__")
    assert logged == []


@pytest.mark.parametrize("missing", ["database", "role"])
async def test_a_missing_database_is_not_a_missing_table(postgres_url: str, logged: list[str], missing: str) -> None:
    """Its error says "does not exist", too."""
    url = sa.make_url(postgres_url)
    there = {"database": url.set(database="no_such_database"), "role": url.set(username="order_saga")}[missing]
    engine = create_async_engine(there)
    async with SagaOrchestrator(model_class=OrderSaga, session_maker=async_sessionmaker(engine)) as orchestrator:
        with pytest.raises(Exception, match="does not exist") as raised:
            await orchestrator.run_due()
    await engine.dispose()
    assert not isinstance(raised.value, SagaSchemaError)
    assert not hasattr(raised.value, "__notes__")
    assert logged == []


class InSchema(DeclarativeBase):
    """Tables in a schema."""


class LegacySaga(InSchema, SagaStateMixin):
    """A saga table with a name that must be quoted, and a column of its own."""

    __tablename__ = "Legacy Saga"
    __table_args__ = {"schema": "back_office"}  # noqa: RUF012 - SQLAlchemy wants a dict

    tenant: Mapped[str | None] = mapped_column(sa.String(20))


async def test_tables_are_looked_for_in_their_schema(postgres_url: str) -> None:
    """One of the same name elsewhere is not meant."""
    engine = create_async_engine(postgres_url)
    elsewhere = engine.execution_options(schema_translate_map={"back_office": "archive"})
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA back_office"))
        await connection.execute(text("CREATE SCHEMA archive"))
        await connection.run_sync(InSchema.metadata.create_all)
    here = SagaOrchestrator(model_class=LegacySaga, session_maker=async_sessionmaker(engine))
    there = SagaOrchestrator(model_class=LegacySaga, session_maker=async_sessionmaker(elsewhere))
    await here.run_due()
    with pytest.raises(
        SagaSchemaError, match=r"archive\.Legacy Saga is missing.*--table 'Legacy Saga' --schema archive"
    ):
        await there.run_due()
    await engine.dispose()


async def test_the_search_path_says_which_tables_are_meant(postgres_url: str) -> None:
    """What is elsewhere is not found; a view in the place of a table is."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA hidden"))
        await connection.execute(text("SET LOCAL search_path = hidden"))
        await connection.run_sync(Base.metadata.create_all)
    orchestrator = SagaOrchestrator(model_class=OrderSaga, session_maker=async_sessionmaker(engine))
    with pytest.raises(SagaSchemaError, match="order_saga is missing"):
        await orchestrator.run_due()
    async with engine.begin() as connection:
        for table in tables_of(OrderSaga.__table__):  # type: ignore[arg-type]
            await connection.execute(text(f"CREATE VIEW {table.name} AS SELECT * FROM hidden.{table.name}"))
    await orchestrator.run_due()
    await engine.dispose()


async def test_a_catalogue_that_may_not_be_read_gives_no_verdict(postgres_url: str, ledger: list[str]) -> None:
    """Some databases are closed like that, and their tables are there; a caller's transaction goes on."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("CREATE ROLE clerk LOGIN"))
        await connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk"))
        await connection.execute(text("REVOKE SELECT ON pg_catalog.pg_attribute FROM PUBLIC"))
    closed = create_async_engine(sa.make_url(postgres_url).set(username="clerk"))
    sessions = async_sessionmaker(closed)
    orchestrator = SagaOrchestrator(model_class=OrderSaga, session_maker=sessions)
    orchestrator.register("order", saga(OneWay("a", ledger)))
    async with sessions.begin() as session:
        saga_id = await orchestrator.start(**ORDER, session=session)
    await orchestrator.result(saga_id)
    assert ledger == ["a"]
    await orchestrator.aclose()
    await closed.dispose()
    async with engine.begin() as connection:
        await connection.execute(text("DROP OWNED BY clerk"))
        await connection.execute(text("DROP ROLE clerk"))
    await engine.dispose()


async def test_a_store_of_a_test_has_no_tables(ledger: list[str]) -> None:
    """Nothing is asked."""
    async with SagaOrchestrator[OrderSaga](store=MemoryStore()) as orchestrator:
        orchestrator.register("order", saga(OneWay("a", ledger)))
        await orchestrator.start(**ORDER)
    assert ledger == ["a"]
