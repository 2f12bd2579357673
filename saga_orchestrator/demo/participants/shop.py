"""The shop itself: it confirms orders, which is the point of no return."""

from __future__ import annotations

from ..books import Books, add_once
from ..tables import confirmations


class Shop:
    """Keeps the confirmations. Its orders are written where sagas are started: see `run`."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def confirm(self, key: str, order_id: str) -> None:
        """Promise the customer that the order will be delivered."""
        async with self._books.writing() as transaction:
            await add_once(transaction, confirmations, key=key, order_id=order_id)
