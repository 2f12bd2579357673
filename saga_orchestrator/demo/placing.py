"""How orders enter: the order and its saga in one transaction, so that neither can exist without the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from .. import SagaOrchestrator
from .orders import Order
from .saga import NAME, OrderSaga
from .tables import orders as placed

_AT_ONCE = 20


async def place(engine: AsyncEngine, orchestrator: SagaOrchestrator[OrderSaga], orders: Sequence[Order]) -> None:
    """Write the orders and start their sagas, some at a time.

    The session joins a transaction that is begun and committed outside of it. So the orchestrator does not learn of the
    commit, and does not start the sagas in this process: the workers find them.
    """
    for some in _chunks(orders):
        async with engine.begin() as transaction, AsyncSession(transaction) as session:
            await session.execute(insert(placed), [order.model_dump() for order in some])
            for order in some:
                await orchestrator.start(
                    saga_name=NAME, initial_data=order, aggregation_id=order.order_id, session=session
                )


def _chunks(orders: Sequence[Order]) -> Iterator[Sequence[Order]]:
    return (orders[start : start + _AT_ONCE] for start in range(0, len(orders), _AT_ONCE))
