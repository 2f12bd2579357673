"""This library, set up as its README does: a saga of trivial steps, and `start`, which drives it to its end."""

from __future__ import annotations

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import BaseStep, SagaBuilder, SagaDefinition, SagaOrchestrator, SagaStateMixin

from .cases import STEPS, order, reservation
from .contender import main


class Base(DeclarativeBase):
    pass


class BenchSaga(Base, SagaStateMixin):
    __tablename__ = "bench_saga"


class Order(BaseModel):
    order_id: str
    sku: str
    amount: int


class Reservation(BaseModel):
    reference: str
    accepted: bool


class Trivial(BaseStep[Order, Reservation]):
    async def execute(self, inp: Order) -> Reservation:
        return Reservation(**reservation(inp.order_id))

    async def compensate(self, inp: Order, out: Reservation) -> None:
        return None


def definition(steps: int, step: BaseStep[Order, Reservation] | None = None) -> SagaDefinition:
    """Return a saga of so many equal steps, one after the other."""
    builder = SagaBuilder()
    for _ in range(steps):
        builder.add_step(step=step or Trivial(), input_map=lambda ctx: Order(**ctx.initial_data))
    return builder.build()


def engine_for(url: str) -> AsyncEngine:
    """Return the engine for asyncpg's address of a database, or for the path of an SQLite file."""
    if url.startswith("postgresql://"):
        return create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    return create_async_engine(f"sqlite+aiosqlite:///{url}")


async def create_tables(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


def orchestrator_on(engine: AsyncEngine, definitions: dict[str, SagaDefinition]) -> SagaOrchestrator[BenchSaga]:
    """Return an orchestrator with nothing tuned."""
    orchestrator = SagaOrchestrator[BenchSaga](
        model_class=BenchSaga, session_maker=async_sessionmaker(engine, expire_on_commit=False)
    )
    for name, saga in definitions.items():
        orchestrator.register(name, saga)
    return orchestrator


class Ours:
    """Starts each saga with `start`."""

    async def open(self, url: str) -> None:
        self._engine = engine_for(url)
        await create_tables(self._engine)
        self._orchestrator = orchestrator_on(self._engine, {f"trivial_{n}": definition(n) for n in STEPS})

    async def saga(self, number: int, steps: int) -> None:
        data = order(number)
        await self._orchestrator.start(
            saga_name=f"trivial_{steps}", initial_data=data, aggregation_id=str(data["order_id"])
        )

    async def close(self) -> None:
        await self._orchestrator.aclose()
        await self._engine.dispose()


if __name__ == "__main__":
    main(Ours)
