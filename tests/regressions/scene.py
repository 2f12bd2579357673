"""What these tests play with: a saga table, steps that note what they do, processes that die when told to, and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import event, literal_column, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    BaseStep,
    InputContext,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    StepContext,
)
from saga_orchestrator.storage.contract import Store
from saga_orchestrator.storage.store import SagaStore
from saga_orchestrator.testing import ManualClock

LEASE = timedelta(seconds=30)
LATER = timedelta(seconds=31)
SECOND = timedelta(seconds=1)
NAME = "order"
ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {"order_id": "o-1"}, "aggregation_id": "o-1"}


class Base(DeclarativeBase):
    """The tables of these tests."""


class OrderSaga(Base, SagaStateMixin):
    """The sagas of these tests."""

    __tablename__ = "order_saga"


class Asked(BaseModel):
    """What every step is called with."""

    order_id: str = "o-1"


class Receipt(BaseModel):
    """What every step returns."""

    number: str


Deed = Callable[[StepContext], Awaitable[Any]]


async def nothing(ctx: StepContext) -> None:
    """Do nothing more."""


async def forever(ctx: StepContext) -> None:
    """Never end by itself."""
    await asyncio.Event().wait()


def fails(*errors: Exception) -> Deed:
    """Return a deed that raises these errors, one a call, and then succeeds; a single error is raised every time."""
    left = list(errors)

    async def deed(ctx: StepContext) -> None:
        if len(errors) == 1:
            raise errors[0]
        if left:
            raise left.pop(0)

    return deed


class OneWay(BaseStep[Asked, Receipt]):
    """A step that cannot be undone, and that notes in a ledger when its effect happens."""

    def __init__(self, name: str, ledger: list[str], does: Deed = nothing, undoes: Deed = nothing) -> None:
        self.name, self.ledger, self.does, self.undoes = name, ledger, does, undoes
        self.seen: list[StepContext] = []

    async def execute(self, inp: Asked, ctx: StepContext) -> Receipt:
        self.seen.append(ctx)
        returned = await self.does(ctx)
        self.ledger.append(self.name)
        return returned if returned is not None else Receipt(number=f"{self.name}-{inp.order_id}")


class Undoable(OneWay):
    """A step that is undone with its output."""

    async def compensate(self, inp: Asked, out: Receipt, ctx: StepContext) -> None:
        self.seen.append(ctx)
        await self.undoes(ctx)
        self.ledger.append(f"undo {self.name}")


class UndoableBlindly(OneWay):
    """A step that is undone by its key, so that it needs no output."""

    async def compensate(self, inp: Asked, out: Receipt | None, ctx: StepContext) -> None:
        self.seen.append(ctx)
        await self.undoes(ctx)
        self.ledger.append(f"undo {self.name}{'' if out else ' without output'}")


def asked(context: InputContext) -> Asked:
    """Map any initial data to the input of a step."""
    return Asked(order_id=str(context.initial_data.get("order_id", "o-1")))


def saga(*steps: OneWay, version: int = 1, **options: Any) -> SagaDefinition:
    """Return a sequence of steps, each with its name as its id."""
    builder = SagaBuilder(version=version)
    for step in steps:
        builder.add_step(step=step, input_map=asked, step_id=step.name, **options)
    return builder.build()


class Scene:
    """One database, one clock, and as many processes as a test wants."""

    def __init__(self, engine: AsyncEngine, clock: ManualClock | None) -> None:
        self.engine, self.clock = engine, clock
        self.sessions = async_sessionmaker(engine)
        self._open: list[SagaOrchestrator[OrderSaga]] = []

    def orchestrator(
        self, definition: SagaDefinition | None = None, *, store: Store | None = None, **settings: Any
    ) -> SagaOrchestrator[OrderSaga]:
        """Return what stands for one more process; the definition is registered under `NAME`."""
        made = SagaOrchestrator[OrderSaga](
            **{"model_class": OrderSaga, "session_maker": self.sessions, "execution_lease": LEASE} | settings,
            store=store,
            clock=self.clock,
        )
        if definition is not None:
            made.register(NAME, definition)
        self._open.append(made)
        return made

    def store(self) -> SagaStore:
        """Return a store of its own for one more process."""
        return SagaStore(OrderSaga, self.engine, self.clock)

    def pass_time(self, by: timedelta = LATER) -> None:
        """Let time pass; by default, more than a lease."""
        assert self.clock is not None
        self.clock.advance(by)

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        """Do something behind the library's back."""
        async with self.engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def edit(self, saga_id: UUID, **columns: str) -> None:
        """Edit a saga's row by hand: columns and what SQL they are to hold."""
        change = {OrderSaga.__table__.c[name]: literal_column(sql) for name, sql in columns.items()}
        async with self.engine.begin() as connection:
            await connection.execute(update(OrderSaga.__table__).where(OrderSaga.id == saga_id).values(change))

    async def aclose(self) -> None:
        """End every process in good order."""
        for orchestrator in self._open:
            await orchestrator.aclose()


def _in_a_hurry(connection: Any, _: Any) -> None:
    """Have SQLite wait for no disk: a process that dies in here takes no machine with it."""
    cursor = connection.cursor()  # what `connection.execute` returns depends on the version of SQLAlchemy
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()


@asynccontextmanager
async def scene_on(url: str, *, manual_clock: bool = True) -> AsyncIterator[Scene]:
    """Open a scene on a database, with new tables."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _in_a_hurry)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    scene = Scene(engine, ManualClock() if manual_clock else None)
    try:
        yield scene
    finally:
        await scene.aclose()
        await engine.dispose()


class MortalStore:
    """The store of a process that dies at a chosen write: nothing that it is asked afterwards ever returns.

    Args:
        survives: How many writes it lives through.
        commits: Whether the write at which it dies still reaches the database.
    """

    def __init__(self, store: Store, *, survives: int, commits: bool) -> None:
        self._store, self._survives, self._commits = store, survives, commits
        self.dead = asyncio.Event()

    async def write(self, batch: Sequence[Any]) -> list[Any]:
        if not self._survives:
            if self._commits and not self.dead.is_set():
                await self._store.write(batch)
            self.dead.set()
            await asyncio.Event().wait()
        self._survives -= 1
        return await self._store.write(batch)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        async def until_death(*args: Any) -> Any:
            if self.dead.is_set() and name != "aclose":
                await asyncio.Event().wait()
            return await found(*args)

        return until_death


class Gate:
    """A store that stands still after one operation has been committed, until the gate is opened."""

    def __init__(self, store: Store, name: str = "write") -> None:
        self._store, self._name = store, name
        self.reached, self.stopped, self.opened = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._name:
            return found

        async def through(*args: Any) -> Any:
            answer = await found(*args)
            self.reached.set()
            if not self.opened.is_set():
                self.stopped.set()
            await self.opened.wait()
            return answer

        return through


@asynccontextmanager
async def mortal(work: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
    """Run the work of a process in the background, and end all that it has begun, without a goodbye, on the way out."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        while begun := asyncio.all_tasks() - before:
            for each in begun:
                each.cancel()
            await asyncio.wait(begun)


def admin_of(orchestrator: SagaOrchestrator[OrderSaga]) -> SagaAdmin[OrderSaga]:
    """Return the operator's view."""
    return SagaAdmin(orchestrator.engine)


async def until_awaiting(orchestrator: SagaOrchestrator[OrderSaga], saga_id: UUID, awaiting: str) -> None:
    """Watch a saga until it waits for this."""
    async with asyncio.timeout(20):
        async for snapshot in orchestrator.watch(saga_id):
            if snapshot.awaiting == awaiting:
                return
