"""The bank: charges cards and refunds charges. Its test cards decide what goes wrong.

The worst that a payment provider can do is to take the money and not say so. Three cards do that; they differ in how
the truth can be learnt: by asking (`find`), by calling again under the same key, or not at all.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from ... import OutcomeUnknown, PermanentError
from ..books import Books, add_once
from ..orders import Order
from ..tables import charges, refunds

DECLINES = "4000000000000002"
ANSWER_LOST = "4000000000000119"
"""Charged, but the answer is lost; the bank, asked later, knows the charge."""
ANSWER_LOST_ASK_AGAIN = "4000000000000127"
"""The same, and nobody can be asked; but the same call, made again, is answered."""
NEVER_ANSWERS = "4000000000000135"
"""Charged, and never answered in any way."""


class CardDeclined(PermanentError):  # noqa: N818 - named as the business calls it
    """The issuer says no, and will say so again."""


class Bank:
    """Keeps charges and refunds."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def charge(self, key: str, order: Order) -> None:
        """Take the money, once per key.

        Raises:
            CardDeclined: The card is no good.
            PermanentError: This very charge was given up before it arrived.
        """
        if order.card == DECLINES:
            raise CardDeclined(f"card ...{order.card[-4:]} was declined")
        async with self._books.writing() as transaction:
            entry = {"order_id": order.order_id, "card": order.card, "cents": order.amount_cents}
            is_new = await add_once(transaction, charges, key=key, **entry)
            if not is_new and not await _charged(transaction, key):
                raise PermanentError(f"order {order.order_id}: this charge was given up")
        if order.card == NEVER_ANSWERS or (is_new and order.card in (ANSWER_LOST, ANSWER_LOST_ASK_AGAIN)):
            await asyncio.Event().wait()

    async def find(self, key: str, order: Order) -> bool:
        """Return whether the money was taken under this key.

        Raises:
            OutcomeUnknown: The bank's enquiry desk does not answer for this card either.
        """
        if order.card in (ANSWER_LOST_ASK_AGAIN, NEVER_ANSWERS):
            raise OutcomeUnknown(f"the bank cannot be asked about card ...{order.card[-4:]}")
        return bool(await self._books.read(select(charges.c.cents).where(charges.c.key == key)))

    async def refund(self, key: str, charge: str, order: Order) -> None:
        """Give the money back; nothing, if the charge has not arrived, and then it never will (see the warehouse)."""
        async with self._books.writing() as transaction:
            await add_once(transaction, charges, key=charge, order_id=order.order_id, card=order.card, cents=0)
            cents = await _charged(transaction, charge)
            await add_once(transaction, refunds, key=key, order_id=order.order_id, cents=cents)


async def _charged(transaction: AsyncConnection, key: str) -> int:
    return int(await transaction.scalar(select(charges.c.cents).where(charges.c.key == key)) or 0)
