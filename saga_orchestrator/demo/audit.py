"""The audit: what the participants' tables say, whatever the sagas claim.

An accountant's questions, asked in an accountant's way. Of each order: if it was confirmed, was it reserved, charged,
booked and announced exactly once, and if it was not, is nothing of it left? Of the whole: do the shelf and the cash box
hold what the entries say they hold? The second kind finds what the first overlooks, such as entries of nobody's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Select, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from . import tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Everything that the participants did for one order."""

    order_id: str
    quantity: int
    amount_cents: int
    confirmations: int
    reservations: int
    reserved: int
    released: int
    charges: int
    charged: int
    refunded: int
    bookings: int
    mails: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """One article: the units there were, and are, and the units that its entries say are reserved or delivered."""

    sku: str
    initial: int
    on_hand: int
    reserved: int
    delivered: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that the participants' tables say."""

    accounts: Sequence[Account]
    shelves: Sequence[Shelf]
    captured: int
    refunded: int
    strangers: Sequence[str]

    @property
    def delivered(self) -> list[Account]:
        return [account for account in self.accounts if account.confirmations]

    @property
    def undone(self) -> list[Account]:
        return [account for account in self.accounts if not account.confirmations]

    @property
    def sales(self) -> int:
        return sum(account.amount_cents for account in self.delivered)


def find_faults(ledger: Ledger) -> list[str]:
    """Return all that is wrong, in words; nothing, if every order and every sum is right."""
    wrong = [f"order {account.order_id}: {fault}" for account in ledger.accounts for fault in _order_faults(account)]
    wrong += [f"{stranger}: an entry about an order that nobody placed" for stranger in ledger.strangers]
    wrong += [fault for shelf in ledger.shelves for fault in _shelf_faults(shelf)]
    if ledger.captured - ledger.refunded != ledger.sales:
        wrong.append(
            f"money: captured {money(ledger.captured)} - refunded {money(ledger.refunded)} "
            f"!= delivered {money(ledger.sales)}"
        )
    return wrong


def money(cents: int) -> str:
    """Return an amount as people write it."""
    return f"{cents // 100:,}.{cents % 100:02d}" if cents >= 0 else f"-{money(-cents)}"


def _order_faults(account: Account) -> Iterator[str]:
    return _delivery_faults(account) if account.confirmations else _leftovers(account)


def _delivery_faults(a: Account) -> Iterator[str]:
    """Say what a confirmed order lacks, or has too much of."""
    if a.confirmations != 1:
        yield f"confirmed {a.confirmations} times"
    if (a.reservations, a.reserved - a.released) != (1, a.quantity):
        yield f"confirmed, but {a.reserved} units reserved by {a.reservations} calls and {a.released} released"
    if (a.charges, a.charged - a.refunded) != (1, a.amount_cents):
        yield f"confirmed, but {money(a.charged)} charged by {a.charges} calls and {money(a.refunded)} refunded"
    if a.bookings != 1:
        yield f"confirmed, but booked with the courier {a.bookings} times"
    if a.mails != 1:
        yield f"confirmed, but the customer was notified {a.mails} times"


def _leftovers(a: Account) -> Iterator[str]:
    """Say what is left of an order that was not confirmed."""
    if a.reserved != a.released:
        yield f"not confirmed, but {a.reserved - a.released} of {a.reserved} reserved units were not released"
    if a.charged != a.refunded:
        yield f"not confirmed, but {money(a.charged - a.refunded)} of {money(a.charged)} charged were not refunded"
    if a.bookings:
        yield "not confirmed, but booked with the courier"
    if a.mails:
        yield "not confirmed, but the customer was told that it is on its way"


def _shelf_faults(shelf: Shelf) -> Iterator[str]:
    for what, gone in (("reserved", shelf.reserved), ("delivered", shelf.delivered)):
        if shelf.initial != shelf.on_hand + gone:
            yield f"stock of {shelf.sku}: {shelf.initial} at first != {shelf.on_hand} on hand + {gone} {what}"


# --- reading the tables --------------------------------------------------------------------------------------------


async def read_ledger(engine: AsyncEngine) -> Ledger:
    """Read all the participants' tables."""
    async with engine.connect() as connection:
        return Ledger(
            accounts=[Account(**row) for row in (await connection.execute(_accounts())).mappings()],
            shelves=[Shelf(**row) for row in (await connection.execute(_shelves())).mappings()],
            captured=await _total(connection, tables.charges.c.cents),
            refunded=await _total(connection, tables.refunds.c.cents),
            strangers=await _strangers(connection),
        )


def _accounts() -> Select[tuple[object, ...]]:
    """Return the query for one row per order; an entry for nothing (a call given up) does not count as a call."""
    t = tables
    return select(
        *(t.orders.c[name] for name in ("order_id", "quantity", "amount_cents")),
        _count(t.confirmations).label("confirmations"),
        _count(t.reservations, t.reservations.c.quantity > 0).label("reservations"),
        _sum(t.reservations.c.quantity).label("reserved"),
        _sum(t.releases.c.quantity).label("released"),
        _count(t.charges, t.charges.c.cents > 0).label("charges"),
        _sum(t.charges.c.cents).label("charged"),
        _sum(t.refunds.c.cents).label("refunded"),
        _count(t.bookings).label("bookings"),
        _count(t.mails).label("mails"),
    ).order_by(t.orders.c.order_id)


def _count(entries: Table, *which: ColumnElement[bool]) -> ColumnElement[int]:
    mine = entries.c.order_id == tables.orders.c.order_id
    return select(func.count()).select_from(entries).where(mine, *which).scalar_subquery()


def _sum(column: Column[int]) -> ColumnElement[int]:
    mine = column.table.c.order_id == tables.orders.c.order_id
    return select(func.coalesce(func.sum(column), 0)).where(mine).scalar_subquery()


def _shelves() -> Select[tuple[object, ...]]:
    stock, orders, promised = tables.stock, tables.orders, tables.confirmations
    reserved = _of_article(tables.reservations.c.quantity) - _of_article(tables.releases.c.quantity)
    delivered = (
        select(func.coalesce(func.sum(orders.c.quantity), 0))
        .where(orders.c.sku == stock.c.sku, orders.c.order_id.in_(select(promised.c.order_id)))
        .scalar_subquery()
    )
    return select(
        stock.c.sku, stock.c.initial, stock.c.on_hand, reserved.label("reserved"), delivered.label("delivered")
    ).order_by(stock.c.sku)


def _of_article(column: Column[int]) -> ColumnElement[int]:
    mine = column.table.c.sku == tables.stock.c.sku
    return select(func.coalesce(func.sum(column), 0)).where(mine).scalar_subquery()


async def _total(connection: AsyncConnection, column: Column[int]) -> int:
    return int(await connection.scalar(select(func.coalesce(func.sum(column), 0))) or 0)


async def _strangers(connection: AsyncConnection) -> list[str]:
    """Return the keys of entries whose order is not among those placed."""
    t = tables
    entries = (t.confirmations, t.reservations, t.releases, t.charges, t.refunds, t.bookings, t.mails)
    known = select(t.orders.c.order_id)
    found: list[str] = []
    for table in entries:
        keys = await connection.scalars(select(table.c.key).where(table.c.order_id.not_in(known)))
        found += [f"{table.name} {key}" for key in keys]
    return found
