"""The services that a saga calls: each with its own tables and its own transactions, none of which knows of sagas.

Every call carries an idempotency key, and acts once per key, however often and from however many processes it comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..books import Books
from .bank import Bank
from .courier import Courier
from .mailer import Mailer
from .shop import Shop
from .warehouse import Warehouse


@dataclass(frozen=True)
class Participants:
    """All whom the order saga calls."""

    warehouse: Warehouse
    bank: Bank
    shop: Shop
    courier: Courier
    mailer: Mailer

    @classmethod
    def on(cls, books: Books) -> Participants:
        return cls(Warehouse(books), Bank(books), Shop(books), Courier(books), Mailer(books))
