"""The quick start: an order as a saga, on SQLite. One order goes through, the other is declined and undone.

python examples/order_saga.py
"""

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    BaseStep,
    ExponentialRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStatus,
)


class Base(DeclarativeBase):
    pass


class OrderSaga(Base, SagaStateMixin):
    __tablename__ = "order_sagas"


class Goods(BaseModel):
    sku: str
    quantity: int


class Reservation(BaseModel):
    price: int


class Payment(BaseModel):
    amount: int


class Receipt(BaseModel):
    receipt_id: str


SHELF = {"lamp": 6}  # stands in for a warehouse, which would act once per `ctx.idempotency_key`
LIMIT = 100


class ReserveStock(BaseStep[Goods, Reservation]):
    async def execute(self, inp: Goods) -> Reservation:
        SHELF[inp.sku] -= inp.quantity
        return Reservation(price=40 * inp.quantity)

    async def compensate(self, inp: Goods, out: Reservation) -> None:
        SHELF[inp.sku] += inp.quantity


class ChargeCard(BaseStep[Payment, Receipt]):
    async def execute(self, inp: Payment) -> Receipt:
        if inp.amount > LIMIT:
            raise PermanentError(f"{inp.amount} is over the card's limit")  # it did not act; trying again is useless
        return Receipt(receipt_id=f"R-{inp.amount}")


def order_saga() -> SagaDefinition:
    builder = SagaBuilder()
    reserved = builder.add_step(
        step_id="reserve",
        step=ReserveStock(),
        input_map=lambda ctx: Goods(**ctx.initial_data),
        retry_policy=ExponentialRetry(max_attempts=3, base_delay=timedelta(seconds=1)),
    )
    builder.add_step(
        step_id="charge",
        step=ChargeCard(),
        depends_on=reserved,
        input_map=lambda reservation: Payment(amount=reservation.price),
        timeout=timedelta(seconds=10),
    )
    return builder.build()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = create_async_engine(f"sqlite+aiosqlite:///{Path(folder) / 'shop.db'}")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with SagaOrchestrator[OrderSaga](model_class=OrderSaga, session_maker=sessions) as orchestrator:
            orchestrator.register("order", order_saga())
            await run_orders(orchestrator)
        await engine.dispose()


async def run_orders(orchestrator: SagaOrchestrator[OrderSaga]) -> None:
    paid = await orchestrator.start(
        saga_name="order", initial_data={"sku": "lamp", "quantity": 2}, aggregation_id="order-1"
    )
    await tell(orchestrator, paid)
    assert (await orchestrator.get_snapshot(paid)).status is SagaStatus.COMPLETED
    assert SHELF == {"lamp": 4}

    declined = await orchestrator.start(
        saga_name="order", initial_data={"sku": "lamp", "quantity": 3}, aggregation_id="order-2"
    )
    await tell(orchestrator, declined)
    assert (await orchestrator.get_snapshot(declined)).status is SagaStatus.COMPENSATED
    assert SHELF == {"lamp": 4}, "the second order's lamps are back on the shelf"


async def tell(orchestrator: SagaOrchestrator[OrderSaga], saga_id: UUID) -> None:
    saga = await SagaAdmin[OrderSaga](engine=orchestrator.engine).get_saga(saga_id)
    print(saga.aggregation_id)
    for entry in saga.step_history:
        print(f"  {entry.phase:<10}  {entry.step_id:<7}  {entry.status:<7}  {entry.error or ''}".rstrip())
    print(f"  {saga.status.value}, {SHELF['lamp']} lamps on the shelf")


if __name__ == "__main__":
    asyncio.run(main())
