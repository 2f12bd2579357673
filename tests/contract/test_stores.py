"""Every store keeps the contract: in memory, on SQLite, and on PostgreSQL in both forms of its write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiosqlite
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import StaticPool

from saga_orchestrator import SagaDefinitionError, SagaStateMixin
from saga_orchestrator.storage.contract import Store
from saga_orchestrator.storage.one_hop import OneHop
from saga_orchestrator.storage.rows import Written
from saga_orchestrator.storage.store import SagaStore
from saga_orchestrator.testing import MemoryStore, StoreContract
from saga_orchestrator.testing.contract.purging import OLD, left, put_over
from saga_orchestrator.testing.contract.samples import (
    HOUR,
    KNOWN,
    OWNER,
    differing,
    ending,
    newborn,
    past_of,
    put,
    put_due,
    raised_by,
    read,
    step,
    takes,
)
from tests.support.sagas import PlainSaga, TripSaga, site, soon


class Twins(SagaStore):
    """A store with a second one beside it, on connections of its own, as another process would have."""

    twin: SagaStore


@asynccontextmanager
async def one_connection(url: str) -> AsyncIterator[AsyncEngine]:
    """Open a pool in which whoever holds a connection holds the only one."""
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    yield engine
    await engine.dispose()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class SqlStoreContract(StoreContract):
    direct = False
    model: type[Any] = TripSaga

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with site(url) as database:
            store, twin = (Twins(self.model, database.engine) for _ in range(2))
            store.twin = twin
            for each in (store, twin):
                if not self.direct:
                    each._fast = None
            yield store
            await store.aclose()
            await twin.aclose()

    def beside(self, store: Store) -> Store:
        assert isinstance(store, Twins)
        return store.twin


class OnSqlite(SqlStoreContract):
    @pytest.fixture
    def url(self, sqlite_url: str) -> str:
        return sqlite_url


class TestSqliteInOneHop(OnSqlite):
    direct = True
    model = PlainSaga

    async def test_it_is_the_form_that_is_chosen(self, store: Store) -> None:
        """On SQLite through aiosqlite a batch is one hop to its thread, births too, unless something is in its way."""
        assert isinstance(store, Twins)
        assert isinstance(store._fast, OneHop)
        assert store._fast.bears(newborn(await store.now()))

    async def test_an_aiosqlite_that_runs_no_functions_is_written_to_portably(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A release without the door that this form uses costs speed, and nothing else."""
        assert isinstance(store, Twins)
        monkeypatch.delattr(aiosqlite.Connection, "_execute")

        assert not OneHop.fits(store.table, store.engine)

    async def test_who_writes_and_who_is_about_to_do_not_wait_for_each_other(self, store: Store, url: str) -> None:
        """With one connection for all, batches and orders take turns: each takes the lock, then the connection."""
        async with one_connection(url) as engine:
            only = SagaStore(self.model, engine)
            heads = [await put(only) for _ in range(8)]
            moves = [only.write([step(head)]) for head in heads]
            orders = [only.advance(head.id, lambda found, now: None) for head in heads]

            await soon(asyncio.gather(*moves, *orders))
            await only.aclose()

    async def test_a_steady_writer_lets_others_have_the_connection(self, store: Store, url: str) -> None:
        """Whoever reads gets the pool's one connection while batch follows batch."""
        async with one_connection(url) as engine:
            only = SagaStore(self.model, engine)
            head = await put(only)
            reading = asyncio.create_task(only.head(head.id))
            while not reading.done():
                await only.write([newborn(head.created_at)])

            assert (await reading) is not None
            await only.aclose()

    @pytest.mark.parametrize("table", ["plain_saga", "plain_saga_history"])
    async def test_what_a_trigger_of_the_application_fails_leaves_nothing(self, store: Store, table: str) -> None:
        """FAIL does not take back what its statement has done; the batch does. No move is taken for written."""
        heads = [await put(store) for _ in range(3)]
        event = "UPDATE" if table == "plain_saga" else "INSERT"
        refused = f"WHEN NEW.{'id' if event == 'UPDATE' else 'saga_id'} = '{heads[1].id.hex}'"
        await _execute(store, f"CREATE TRIGGER limits AFTER {event} ON {table} {refused} BEGIN {_FAIL}; END")

        await raised_by(store.write([step(head) for head in heads]))

        assert [(await read(store, head.id)).revision for head in heads] == [0, 0, 0]
        assert [len(await past_of(store, head.id)) for head in heads] == [0, 0, 0]

    async def test_a_purge_that_a_trigger_of_the_application_fails_leaves_everything(self, store: Store) -> None:
        """What went before the failure is taken back with it: no saga is left without its history."""
        head = await put(store)
        await store.inbox.route(head.id, ["invoice"])
        await store.write([ending(head, head.created_at - 2 * HOUR)])
        await _execute(store, f"CREATE TRIGGER keeps BEFORE DELETE ON plain_saga BEGIN {_FAIL}; END")

        await raised_by(store.purge(OLD, 9))

        assert len(await past_of(store, head.id)) == 1
        assert await store.inbox.addressees("correlation:invoice") == [head.id]

    async def test_a_birth_that_a_trigger_of_the_application_ignores_is_not_done(self, store: Store) -> None:
        """Nobody drives a saga that has no row."""
        await _execute(
            store,
            "CREATE TRIGGER limits BEFORE INSERT ON plain_saga WHEN NEW.aggregation_id = 'bad' "
            "BEGIN SELECT RAISE(IGNORE); END",
        )
        now = await store.now()
        births = [newborn(now), newborn(now, aggregation_id="bad"), newborn(now)]

        assert await store.write(births) == [Written.DONE, Written.TAKEN, Written.DONE]

    async def test_more_rows_than_one_statement_takes(self, store: Store) -> None:
        """A batch of any size is written; one that is too large for a single statement, in the portable form."""
        births = [newborn(await store.now()) for _ in range(1200)]

        assert set(await store.write(births)) == {Written.DONE}
        assert set(await store.write([step(birth.head) for birth in births])) == {Written.DONE}

    async def test_a_connection_goes_back_to_the_pool_as_it_came(self, store: Store, url: str) -> None:
        """What a batch is written through is not left on a connection of the application's, where it may rename."""
        async with one_connection(url) as engine:
            only = SagaStore(self.model, engine)
            await put(only)
            await only.aclose()

            async with engine.connect() as connection:
                left = await connection.execute(text("SELECT name FROM sqlite_temp_master"))
                assert left.scalars().all() == []


_FAIL = "SELECT RAISE(FAIL, 'limit')"


async def _execute(store: Store, sql: str) -> None:
    assert isinstance(store, SagaStore)
    async with store.engine.begin() as connection:
        await connection.execute(text(sql))


class TestSqlitePortable(OnSqlite):
    """What stands in for the other form where that cannot be used."""


class OnPostgres(SqlStoreContract):
    @pytest.fixture
    def url(self, shared_postgres_url: str) -> str:
        return shared_postgres_url

    @property
    def _lock(self) -> TextClause:
        return text(f"SELECT 1 FROM {self.model.__tablename__} WHERE id = :id FOR UPDATE")

    async def test_a_renewal_never_waits_for_a_locked_row(self, store: Store) -> None:
        """A row that somebody else has locked is passed over, and the others are renewed."""
        assert isinstance(store, Twins)
        locked, free = await put(store), await put(store)
        until = locked.created_at + 3 * HOUR
        async with store.twin.engine.begin() as other:
            await other.execute(self._lock, {"id": locked.id})

            assert set(await store.renew(OWNER, [locked.id, free.id], until)) == {free.id}

    async def test_an_owner_that_gives_sagas_up_passes_over_a_locked_row(self, store: Store) -> None:
        """It is told which, and may try again; the lease of the other stays as long as it was."""
        assert isinstance(store, Twins)
        locked, free = await put(store), await put(store)
        tokens = {head.id: head.step_execution_token or head.id for head in (locked, free)}
        async with store.twin.engine.begin() as other:
            await other.execute(self._lock, {"id": locked.id})

            assert await store.disown(OWNER, tokens) == {locked.id}

        assert differing(free, await read(store, free.id), but=["lease_owner"]) == {}
        assert [(await read(store, head.id)).lease_owner for head in (locked, free)] == [OWNER, None]

    async def test_a_write_never_waits_for_a_locked_row(self, store: Store) -> None:
        """The move of a row that somebody else has locked is BUSY, and can be written later; the others are DONE."""
        assert isinstance(store, Twins)
        locked, free = await put(store), await put(store)
        moves = [step(locked), step(free)]
        async with store.twin.engine.begin() as other:
            await other.execute(self._lock, {"id": locked.id})

            assert await store.write(moves) == [Written.BUSY, Written.DONE]

        assert await store.write(moves) == [Written.DONE, Written.DONE]

    async def test_a_row_that_refers_to_a_saga_is_in_nobodys_way(self, store: Store) -> None:
        """A transaction that has inserted a row with a foreign key to the saga does not hold up its next step."""
        assert isinstance(store, Twins)
        head = await put(store)
        async with store.twin.engine.begin() as other:
            await other.execute(text(f"{self._lock.text.partition('FOR')[0]} FOR KEY SHARE"), {"id": head.id})

            assert await store.write([step(head)]) == [Written.DONE]

    async def test_what_is_due_is_found_by_its_index(self, store: Store) -> None:
        """A look for due sagas reads those, and not all that are active: the index is searched up to now."""
        assert isinstance(store, Twins)
        query = store._sql.any_due(KNOWN, store.dialect.due_by())
        sql = str(query.compile(dialect=store.engine.dialect, compile_kwargs={"literal_binds": True}))
        async with store.engine.begin() as connection:
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
            plan = "\n".join((await connection.execute(text(f"EXPLAIN {sql}"))).scalars())

        assert "Index Cond: (deadline_at <=" in plan

    async def test_the_letters_of_a_saga_that_is_deleted_are_found_by_their_index(self, store: Store) -> None:
        """For each saga that goes, its foreign key looks for its letters, settled ones too, and not through all."""
        assert isinstance(store, Twins)
        inbox = f"{self.model.__tablename__}_inbox"
        async with store.engine.begin() as connection:
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
            sql = f"EXPLAIN DELETE FROM ONLY {inbox} WHERE '{uuid4()}' OPERATOR(pg_catalog.=) saga_id"
            plan = "\n".join((await connection.execute(text(sql))).scalars())

        assert f"ix_{inbox}_saga" in plan

    async def test_a_claim_never_waits_for_a_locked_row(self, store: Store) -> None:
        """A due saga that somebody else has locked is passed over, and the others are claimed."""
        assert isinstance(store, Twins)
        locked, free = await put_due(store), await put_due(store)
        async with store.twin.engine.begin() as other:
            await other.execute(self._lock, {"id": locked.id})

            [(head, _)] = await store.claim(KNOWN, 10, takes("me"))

        assert head.id == free.id

    async def test_a_purge_never_waits_for_a_locked_row(self, store: Store) -> None:
        """A saga that somebody else has locked is passed over, and the others are deleted."""
        assert isinstance(store, Twins)
        locked, free = await put_over(store), await put_over(store)
        async with store.twin.engine.begin() as other:
            await other.execute(self._lock, {"id": locked.id})

            assert await store.purge(OLD, 9) == 1

        assert await left(store, locked, free) == [True, False]


class TestPostgresInOneStatement(OnPostgres):
    direct = True
    model = PlainSaga

    async def test_it_is_the_form_that_is_chosen(self, store: Store) -> None:
        """On PostgreSQL through asyncpg a batch is one statement, births too, unless something is in its way."""
        assert isinstance(store, Twins)
        assert store._fast is not None
        assert store._fast.bears(newborn(await store.now()))


class TestPostgresPortable(OnPostgres):
    """What any other database would be spoken to with."""


class Names(DeclarativeBase):
    pass


class SentSaga(Names, SagaStateMixin):
    __tablename__ = "sent"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_table_may_be_called_what_a_statement_calls_its_own(
    kind: str, sqlite_url: str, shared_postgres_url: str
) -> None:
    """Sagas in a table called `sent` are born, and moved."""
    engine = create_async_engine(sqlite_url if kind == "sqlite" else shared_postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(Names.metadata.drop_all)
        await connection.run_sync(Names.metadata.create_all)
    store = SagaStore(SentSaga, engine)
    heads = [await put(store) for _ in range(2)]

    assert await store.write([step(head) for head in heads]) == [Written.DONE] * 2
    assert await store.write([step(await read(store, heads[0].id))]) == [Written.DONE]

    await store.aclose()
    await engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_table_that_sqlalchemy_writes_elsewhere_is_left_to_it(
    kind: str, sqlite_url: str, shared_postgres_url: str
) -> None:
    """Under a `schema_translate_map` only SQLAlchemy knows where the table is."""
    engine = create_async_engine(sqlite_url if kind == "sqlite" else shared_postgres_url)
    elsewhere = engine.execution_options(schema_translate_map={None: "other"})

    assert SagaStore(PlainSaga, engine)._fast is not None
    assert SagaStore(PlainSaga, elsewhere)._fast is None
    await engine.dispose()


async def test_one_connection_for_everybody_is_refused(sqlite_url: str) -> None:
    """On a StaticPool one transaction would take the other's work back."""
    engine = create_async_engine(sqlite_url, poolclass=StaticPool)
    with pytest.raises(SagaDefinitionError, match="A StaticPool has one connection for everybody"):
        SagaStore(PlainSaga, engine)
    await engine.dispose()
