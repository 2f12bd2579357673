"""The warehouse: reserves goods, and takes them back onto the shelf."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ... import PermanentError
from ..books import Books, add_once
from ..orders import Order
from ..tables import releases, reservations, stock


class SoldOut(PermanentError):  # noqa: N818 - named as the business calls it
    """There are not enough units left; asking again brings none back."""


class Warehouse:
    """Keeps the shelf, the reservations, and the releases."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def reserve(self, key: str, order: Order) -> None:
        """Take the goods off the shelf.

        Raises:
            SoldOut: There are not enough.
            PermanentError: This very reservation was given up before it arrived.
        """
        entry = {"order_id": order.order_id, "sku": order.sku, "quantity": order.quantity}
        async with self._books.writing() as transaction:
            if await add_once(transaction, reservations, key=key, **entry):
                await _take(transaction, order)
            elif not await _reserved(transaction, key):
                raise PermanentError(f"order {order.order_id}: this reservation was given up")

    async def release(self, key: str, reservation: str, order: Order) -> None:
        """Put back what was reserved; nothing, if the reservation has not arrived, and then it never will.

        An entry in its place, for nothing, shuts the door: a call that was delayed finds its key taken.
        """
        goods = {"order_id": order.order_id, "sku": order.sku}
        async with self._books.writing() as transaction:
            await add_once(transaction, reservations, key=reservation, quantity=0, **goods)
            quantity = await _reserved(transaction, reservation)
            if await add_once(transaction, releases, key=key, quantity=quantity, **goods):
                back = update(stock).where(stock.c.sku == order.sku).values(on_hand=stock.c.on_hand + quantity)
                await transaction.execute(back)


async def _take(transaction: AsyncConnection, order: Order) -> None:
    enough = (stock.c.sku == order.sku) & (stock.c.on_hand >= order.quantity)
    taken = await transaction.execute(update(stock).where(enough).values(on_hand=stock.c.on_hand - order.quantity))
    if taken.rowcount == 0:
        raise SoldOut(f"{order.sku} is sold out: {order.quantity} wanted")


async def _reserved(transaction: AsyncConnection, key: str) -> int:
    quantity = await transaction.scalar(select(reservations.c.quantity).where(reservations.c.key == key))
    return int(quantity or 0)
