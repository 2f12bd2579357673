"""The mailer: tells customers that their goods are on the way."""

from __future__ import annotations

from ..books import Books, add_once
from ..tables import mails


class Mailer:
    """Keeps what it has sent."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def send(self, key: str, order_id: str, recipient: str, subject: str) -> None:
        """Send a mail, once per key."""
        async with self._books.writing() as transaction:
            await add_once(transaction, mails, key=key, order_id=order_id, recipient=recipient, subject=subject)
