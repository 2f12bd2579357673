"""The courier: books deliveries. In some cities its service is down when it is first called."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..books import Books, add_once
from ..orders import Order
from ..tables import bookings, courier_calls

OUTAGES = {"Reykjavik": 2, "Valletta": 1}
"""How many calls for an order fail first, by city."""


class CourierDown(ConnectionError):  # noqa: N818 - named as the business calls it
    """The courier's service does not answer at the moment."""


class Courier:
    """Keeps its bookings, and counts the calls for each order."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def book(self, key: str, order: Order) -> None:
        """Book a delivery, once per key.

        Raises:
            CourierDown: Try again later.
        """
        async with self._books.writing() as transaction:
            calls = await _count(transaction, order.order_id)
            is_up = calls > OUTAGES.get(order.city, 0)
            if is_up:
                await add_once(transaction, bookings, key=key, order_id=order.order_id, city=order.city)
        if not is_up:
            raise CourierDown(f"no courier in {order.city} answers (call {calls})")


async def _count(transaction: AsyncConnection, order_id: str) -> int:
    mine = courier_calls.c.order_id == order_id
    await add_once(transaction, courier_calls, order_id=order_id, calls=0)
    await transaction.execute(update(courier_calls).where(mine).values(calls=courier_calls.c.calls + 1))
    return int(await transaction.scalar(select(courier_calls.c.calls).where(mine)) or 0)
