"""The peer python-saga-orchestrator 0.7.3, set up as its README does, with PostgreSQL through asyncpg.

Its package is called `saga_orchestrator` too. So it runs in a process of its own, with the folder that it is installed
in first on the path.
"""

from __future__ import annotations

import importlib.metadata
import sys
import uuid
from typing import Any

sys.path.insert(0, str(importlib.metadata.distribution("python-saga-orchestrator").locate_file("")))

from pydantic import BaseModel
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from saga_orchestrator import (
    BaseStep,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStepHistoryMixin,
)

from .cases import STEPS, order, reservation
from .contender import main

CONNECTIONS = 8


class Base(DeclarativeBase):
    pass


class PeerSagaHistory(Base, SagaStepHistoryMixin):
    __tablename__ = "peer_saga_history"

    saga_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("peer_saga.id", ondelete="CASCADE"), index=True)


class PeerSaga(Base, SagaStateMixin):
    __tablename__ = "peer_saga"

    step_history: Mapped[list[PeerSagaHistory]] = relationship(
        "PeerSagaHistory", cascade="all, delete-orphan", order_by="PeerSagaHistory.id"
    )


class Order(BaseModel):
    order_id: str
    sku: str
    amount: int


class Reservation(BaseModel):
    reference: str
    accepted: bool


class Trivial(BaseStep[Order, Reservation]):
    async def execute(self, inp: Order, event_type: str | None = None, event_payload: Any | None = None) -> Reservation:
        return Reservation(**reservation(inp.order_id))

    async def compensate(
        self, inp: Order, out: Reservation, event_type: str | None = None, event_payload: Any | None = None
    ) -> None:
        return None


def definition(steps: int) -> SagaDefinition:
    builder = SagaBuilder()
    for _ in range(steps):
        builder.add_step(step=Trivial(), input_map=lambda ctx: Order(**ctx.initial_data))
    return builder.build()


class PythonSagaOrchestrator:
    """Starts each saga with `start`, which drives it to its end."""

    async def open(self, url: str) -> None:
        address = url.replace("postgresql://", "postgresql+asyncpg://")
        # A pool that waits: with sagas beyond its size in flight, opening and closing overflow connections costs more.
        self._engine = create_async_engine(address, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=300)
        async with self._engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        self._orchestrator = SagaOrchestrator[PeerSaga, PeerSagaHistory](
            model_class=PeerSaga,
            history_model_class=PeerSagaHistory,
            session_maker=async_sessionmaker(self._engine, expire_on_commit=False),
        )
        for steps in STEPS:
            self._orchestrator.register(f"trivial_{steps}", definition(steps))

    async def saga(self, number: int, steps: int) -> None:
        data = order(number)
        aggregation_id = str(data["order_id"])
        await self._orchestrator.start(saga_name=f"trivial_{steps}", initial_data=data, aggregation_id=aggregation_id)

    async def close(self) -> None:
        await self._engine.dispose()


if __name__ == "__main__":
    main(PythonSagaOrchestrator)
