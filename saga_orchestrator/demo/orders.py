"""What is ordered and what is on the shelf: the same for every run, however long it is."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice

from pydantic import BaseModel


class Order(BaseModel, frozen=True):
    """One order. The card and the city decide what will go wrong, the goods may have run out."""

    order_id: str
    customer: str
    city: str
    sku: str
    quantity: int
    amount_cents: int
    card: str


def read_orders(count: int) -> list[Order]:
    """Return the first `count` orders of the file, which begins anew, with new order ids, as often as it takes."""
    return list(islice(_endless(_rows("orders.csv")), count))


def read_stock(count: int) -> dict[str, int]:
    """Return the units on the shelf for `count` orders: the file's, once for every round of the orders."""
    rounds = -(-count // len(_rows("orders.csv")))
    return {row["sku"]: int(row["units"]) * rounds for row in _rows("stock.csv")}


def _endless(rows: list[dict[str, str]]) -> Iterator[Order]:
    suffix, lap = "", 1
    while True:
        for row in rows:
            yield Order.model_validate(row | {"order_id": row["order_id"] + suffix})
        lap += 1
        suffix = f"-{lap}"


def _rows(name: str) -> list[dict[str, str]]:
    with (files(__package__) / name).open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
