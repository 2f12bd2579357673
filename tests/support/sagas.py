"""A tiny vocabulary of sagas for tests: steps that write down what they did, gates that hold them, stores that meddle.

A `World` is everything outside the sagas: it notes each call in order, and each step asks it how to behave. Nothing in
here sleeps: a race is made by closing a gate, waiting until somebody has reached it, and letting go.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import NullPool, String, create_engine, delete, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from saga_orchestrator import (
    BaseStep,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    StepContext,
    StepKind,
)
from saga_orchestrator.storage.companions import inbox_table
from saga_orchestrator.storage.store import SagaStore

NAME = "trip"
PATIENCE = timedelta(seconds=20)
"""How long a test waits for what must come. Never reached when all is well."""


class Base(DeclarativeBase):
    pass


class TripSaga(Base, SagaStateMixin):
    """A saga table with columns of its user's."""

    __tablename__ = "trip_saga"

    tenant: Mapped[str | None] = mapped_column(String(50))
    channel: Mapped[str] = mapped_column(String(50), default="web")
    voucher: Mapped[str | None] = mapped_column(String(50), unique=True)


class PlainSaga(Base, SagaStateMixin):
    """A saga table with nothing of its user's in it."""

    __tablename__ = "plain_saga"


class Input(BaseModel):
    """What every step is called with."""

    number: int = 0


class Output(BaseModel):
    """What every step returns."""

    ref: str = ""


class Gate:
    """Holds whoever comes until it is opened. `reached`: somebody has come; `cut`: somebody was cancelled in it."""

    def __init__(self) -> None:
        self.reached, self.opened, self.cut = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cut.set()
            raise

    async def wait_reached(self) -> None:
        await soon(self.reached.wait())

    async def wait_cut(self) -> None:
        await soon(self.cut.wait())

    def open(self) -> None:
        self.opened.set()


Act = BaseException | Callable[[], Awaitable[Any]]
"""How a call goes: it raises this, or it awaits this first. What that returns, if anything, is returned."""


class World:
    """Everything outside the sagas. `calls`: what was called, in order; an undo is noted as ``undo <step>``."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.contexts: list[StepContext] = []
        self._script: dict[str, list[Act]] = defaultdict(list)

    def plan(self, call: str, *acts: Act) -> None:
        """Say how the next calls go, one act for each; later ones simply succeed."""
        self._script[call].extend(acts)

    def gate(self, call: str) -> Gate:
        """Hold the next call."""
        gate = Gate()
        self.plan(call, gate)
        return gate

    async def call(self, call: str, ctx: StepContext) -> Any:
        self.calls.append(call)
        self.contexts.append(ctx)
        act = self._script[call].pop(0) if self._script[call] else None
        if isinstance(act, BaseException):
            raise act
        return None if act is None else await act()


class OneWay(BaseStep[Input, Output]):
    """A step of the world that cannot be undone."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    async def execute(self, inp: Input, ctx: StepContext) -> Output:
        done = await self.world.call(self.name, ctx)
        return done if done is not None else Output(ref=f"{self.name}-{inp.number}")


class Deed(OneWay):
    """A step of the world that can be undone, also by one who never learnt what it returned."""

    async def compensate(self, inp: Input, out: Output | None, ctx: StepContext) -> None:
        await self.world.call(f"undo {self.name}", ctx)


def trip(world: World, *names: str, version: int = 1, max_recoveries: int = 5, **options: Any) -> SagaDefinition:
    """Return a saga of these steps, one after the other; a step's options are given by its name."""
    builder = SagaBuilder(version=version, max_recoveries=max_recoveries)
    for name in names or ("flight", "hotel", "car"):
        said = options.get(name, {})
        builder.add_step(
            step=(OneWay if said.get("kind") in (StepKind.PIVOT, StepKind.RETRIABLE) else Deed)(world, name),
            input_map=lambda ctx: Input(number=(ctx.initial_data or {}).get("number", 0)),
            step_id=name,
            **said,
        )
    return builder.build()


def chain(world: World, *names: str) -> SagaDefinition:
    """Return a saga in which each step is given the output of the one before."""
    builder, before = SagaBuilder(), None
    for name in names:
        before = builder.add_step(
            step=Deed(world, name),
            input_map=(lambda ctx: Input()) if before is None else (lambda out: Input(number=len(out.ref))),
            depends_on=before,
            step_id=name,
        )
    return builder.build()


async def soon(awaited: Awaitable[Any]) -> Any:
    """Await what must come; fail instead of hanging when it does not."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        return await awaited


async def until(found: Callable[[], Any]) -> None:
    """Let everybody run until something is so: for what leaves no event to wait for."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not found():  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0)


class MeddlingStore:
    """A store between the engine and the real one, whose calls a test can hold up, refuse, or answer otherwise.

    `around["write"] = meddle` has every `write(...)` become `await meddle(real_write, ...)`.
    """

    def __init__(self, store: Any) -> None:
        self.real = store
        self.around: dict[str, Callable[..., Awaitable[Any]]] = {}

    @property
    def inbox(self) -> Any:
        return self.real.inbox

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            real = getattr(self.real, name)
            return await (self.around[name](real, *args) if name in self.around else real(*args))

        return call


class Site:
    """One database, and the orchestrators of as many processes as a test needs.

    They share a pool, because it costs a connection to make one, and nothing else: no two use one at a time.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = create_async_engine(url, **_options(url))
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._open: list[SagaOrchestrator[TripSaga]] = []
        self._engines: list[AsyncEngine] = [self.engine]

    def joins(self, definition: SagaDefinition | None, **options: Any) -> SagaOrchestrator[TripSaga]:
        """Return the orchestrator of another process; with `store=`, one that works through that store."""
        if "store" not in options:
            options = {"model_class": TripSaga, "session_maker": self.sessions} | options
        orchestrator = SagaOrchestrator[TripSaga](**options)
        if definition is not None:
            orchestrator.register(NAME, definition)
        self._open.append(orchestrator)
        return orchestrator

    def meddling_store(self) -> MeddlingStore:
        return MeddlingStore(SagaStore(TripSaga, self.engine))

    def another_engine(self, **options: Any) -> AsyncEngine:
        self._engines.append(create_async_engine(self.url, **(_options(self.url) | options)))
        return self._engines[-1]

    async def sql(self, statement: str, **values: Any) -> Any:
        """Run a statement of an operator's, by hand, and return its rows."""
        async with self.engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            return result.all() if result.returns_rows else None

    async def value(self, statement: str, **values: Any) -> Any:
        """Return the one value that a statement finds."""
        return (await self.sql(statement, **values))[0][0]

    def key(self, saga_id: UUID) -> Any:
        """Return a saga's id as this database stores it."""
        return saga_id.hex if self.url.startswith("sqlite") else saga_id

    async def edit(self, saga_id: UUID, **columns: Any) -> None:
        """Change a row by hand; a text that begins with ``=`` is an SQL expression."""
        json = "CAST(:{0} AS JSONB)" if self.url.startswith("postgresql") else ":{0}"
        sets, values = [], {}
        for name, value in columns.items():
            if isinstance(value, str) and value.startswith("="):
                sets.append(f"{name} = {value[1:]}")
                continue
            sets.append(f"{name} = {json.format(name) if name in ('state', 'context') else ':' + name}")
            values[name] = value
        await self.sql(f"UPDATE trip_saga SET {', '.join(sets)} WHERE id = :id", id=self.key(saga_id), **values)

    async def make_due(self, saga_id: UUID) -> None:
        """Let a saga's lease, or its timer, have run out an hour ago."""
        await self.edit(saga_id, deadline_at=f"={self.ago}")

    @property
    def ago(self) -> str:
        """The SQL for an hour ago, by this database's clock."""
        is_postgres = self.url.startswith("postgresql")
        return "clock_timestamp() - interval '1 hour'" if is_postgres else "datetime('now', '-1 hour')"

    async def prepare(self) -> None:
        """Make the tables, or empty them."""
        if self.url.startswith("sqlite") and self.url not in _PREPARED:
            shutil.copy(_sqlite_with_tables(), str(make_url(self.url).database))
            _PREPARED.add(self.url)
            return
        async with self.engine.begin() as connection:
            if self.url not in _PREPARED:
                await connection.run_sync(Base.metadata.create_all)
                _PREPARED.add(self.url)
            for model in (TripSaga, PlainSaga):
                await connection.execute(delete(model))
                await connection.execute(delete(inbox_table(model.__table__)))

    async def aclose(self) -> None:
        for orchestrator in self._open:
            await orchestrator.aclose()
        for engine in self._engines:
            await engine.dispose()


@cache
def _sqlite_with_tables() -> Path:
    """Return a file with empty saga tables, to be copied: it is made once in a process, not once for each test."""
    path = Path(tempfile.mkdtemp(prefix="saga-sqlite-")) / "saga.db"
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    Base.metadata.create_all(engine)
    engine.dispose()
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


_PREPARED: set[str] = set()
"""The databases that have the tables already."""


def _options(url: str) -> dict[str, Any]:
    """Return what makes a connection cheap: PostgreSQL compiles nothing for queries as small as a test's."""
    return {"connect_args": {"server_settings": {"jit": "off"}}} if url.startswith("postgresql") else {}


async def stopped_at_hotel(
    site: Site, world: World, **order: Any
) -> tuple[SagaOrchestrator[TripSaga], Gate, asyncio.Task[UUID]]:
    """Start a trip, and return when its step `hotel` is at work: where it goes on, and who waits for it."""
    orchestrator = site.joins(trip(world))
    gate = world.gate("hotel")
    running = asyncio.create_task(orchestrator.start(**order))
    await gate.wait_reached()
    return orchestrator, gate, running


@asynccontextmanager
async def site(url: str) -> AsyncIterator[Site]:
    """Open a database with empty saga tables."""
    opened = Site(url)
    try:
        await opened.prepare()
        yield opened
    finally:
        await opened.aclose()
