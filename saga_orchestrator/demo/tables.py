"""The participants' tables. Each participant touches its own only; the audit reads them all.

The tables are books, in the accountant's sense: an entry is added, never changed, under the key that its writer was
given. The primary key on that key is what makes a repeated call harmless. Nothing here stops an order from being
charged twice under two keys: if the sagas did that, the audit has to see it.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Integer, MetaData, String, Table

metadata = MetaData()


def _entries(name: str, *columns: Column[object]) -> Table:
    """Return a table of entries, each about an order and written once per key."""
    key = Column("key", String(300), primary_key=True)
    return Table(f"demo_{name}", metadata, key, Column("order_id", String(50), index=True, nullable=False), *columns)


def _number(name: str) -> Column[object]:
    return Column(name, Integer, nullable=False)


def _text(name: str) -> Column[object]:
    return Column(name, String(100), nullable=False)


# The shop. Its orders are written in the transaction that starts their sagas.
orders = Table(
    "demo_orders",
    metadata,
    Column("order_id", String(50), primary_key=True),
    *(_text(name) for name in ("customer", "city", "sku")),
    *(_number(name) for name in ("quantity", "amount_cents")),
    _text("card"),
)
confirmations = _entries("confirmations")

# The warehouse. A reservation of nothing is one that was given up before it arrived.
stock = Table(
    "demo_stock",
    metadata,
    Column("sku", String(50), primary_key=True),
    _number("initial"),
    _number("on_hand"),
    CheckConstraint("on_hand >= 0", name="ck_demo_stock_on_hand"),
)
reservations = _entries("reservations", _text("sku"), _number("quantity"))
releases = _entries("releases", _text("sku"), _number("quantity"))

# The bank. A charge of nothing is one that was given up before it arrived.
charges = _entries("charges", _text("card"), _number("cents"))
refunds = _entries("refunds", _number("cents"))

# The courier, and its memory of how often it was called for an order.
bookings = _entries("bookings", _text("city"))
courier_calls = Table(
    "demo_courier_calls", metadata, Column("order_id", String(50), primary_key=True), _number("calls")
)

# The mailer.
mails = _entries("mails", _text("recipient"), _text("subject"))
