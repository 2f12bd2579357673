"""What the sagas claim, held against the participants' tables: a saga must have ended, and must not have lied."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from .. import SagaStatus
from .audit import Ledger
from .saga import OrderSaga


async def read_claims(engine: AsyncEngine) -> dict[str, SagaStatus]:
    """Return the status of each order's saga."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(OrderSaga.aggregation_id, OrderSaga.status))
        return {order_id: SagaStatus(status) for order_id, status in rows}


def find_lies(ledger: Ledger, claims: Mapping[str, SagaStatus]) -> list[str]:
    """Return every order without a saga or with one that is in doubt, and every saga that claims what is not so."""
    delivered = {account.order_id for account in ledger.delivered}
    placed = {account.order_id for account in ledger.accounts}
    wrong = [f"order {order_id}: it was placed, and has no saga" for order_id in sorted(placed - claims.keys())]
    wrong += [f"order {order_id}: it has a saga, and was not placed" for order_id in sorted(claims.keys() - placed)]
    for order_id in sorted(placed & claims.keys()):
        status = claims[order_id]
        if not status.is_terminal:
            wrong.append(f"order {order_id}: in doubt, its saga is {status.value}")
        elif (status is SagaStatus.COMPLETED) != (order_id in delivered):
            truth = "confirmed" if order_id in delivered else "not confirmed"
            wrong.append(f"order {order_id}: its saga claims to be {status.value}, and the order is {truth}")
    return wrong
