"""The steps of the order saga: what an application would write. Each calls one participant under its own key."""

from __future__ import annotations

from pydantic import BaseModel

from .. import BaseStep, StepContext, StepKind
from .orders import Order
from .participants.bank import Bank
from .participants.courier import Courier
from .participants.mailer import Mailer
from .participants.shop import Shop
from .participants.warehouse import Warehouse


class Reservation(BaseModel):
    """What the warehouse holds for an order."""

    reservation_id: str


class Receipt(BaseModel):
    """What the bank took."""

    charge_id: str
    customer: str
    cents: int


class Confirmation(BaseModel):
    """The shop's promise."""

    order_id: str


class Booking(BaseModel):
    """The courier's promise."""

    order_id: str
    tracking_id: str


class Notice(BaseModel):
    """What the customer is told."""

    order_id: str
    recipient: str
    subject: str


class Notified(BaseModel):
    """The customer knows."""

    recipient: str


def key_of_execute(ctx: StepContext) -> str:
    """Return the key that this step's `execute` acts under, for a compensation that never learnt what it returned."""
    return f"{ctx.saga_id}/{ctx.step_id}/execute"


class ReserveStock(BaseStep[Order, Reservation]):
    """Without a `probe`: an attempt in doubt is made again under the same key, or undone without its output."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def execute(self, inp: Order, ctx: StepContext) -> Reservation:
        await self._warehouse.reserve(ctx.idempotency_key, inp)
        return Reservation(reservation_id=ctx.idempotency_key)

    async def compensate(self, inp: Order, out: Reservation | None, ctx: StepContext) -> None:
        reservation = out.reservation_id if out else key_of_execute(ctx)
        await self._warehouse.release(ctx.idempotency_key, reservation, inp)


class ChargeCard(BaseStep[Order, Receipt]):
    """With a `probe`: after an attempt in doubt the bank is asked first, and some charges are found that way."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def execute(self, inp: Order, ctx: StepContext) -> Receipt:
        await self._bank.charge(ctx.idempotency_key, inp)
        return self._receipt(inp, ctx)

    async def probe(self, inp: Order, ctx: StepContext) -> Receipt | None:
        return self._receipt(inp, ctx) if await self._bank.find(ctx.idempotency_key, inp) else None

    async def compensate(self, inp: Order, out: Receipt | None, ctx: StepContext) -> None:
        charge = out.charge_id if out else key_of_execute(ctx)
        await self._bank.refund(ctx.idempotency_key, charge, inp)

    def _receipt(self, inp: Order, ctx: StepContext) -> Receipt:
        return Receipt(charge_id=ctx.idempotency_key, customer=inp.customer, cents=inp.amount_cents)


class ConfirmOrder(BaseStep[Order, Confirmation]):
    """The pivot: until here everything can be undone, from here on everything will be done."""

    kind = StepKind.PIVOT

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def execute(self, inp: Order, ctx: StepContext) -> Confirmation:
        await self._shop.confirm(ctx.idempotency_key, inp.order_id)
        return Confirmation(order_id=inp.order_id)


class BookCourier(BaseStep[Order, Booking]):
    """Retried until it succeeds."""

    kind = StepKind.RETRIABLE

    def __init__(self, courier: Courier) -> None:
        self._courier = courier

    async def execute(self, inp: Order, ctx: StepContext) -> Booking:
        await self._courier.book(ctx.idempotency_key, inp)
        return Booking(order_id=inp.order_id, tracking_id=f"T-{inp.order_id}")


class NotifyCustomer(BaseStep[Notice, Notified]):
    """Retried until it succeeds."""

    kind = StepKind.RETRIABLE

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    async def execute(self, inp: Notice, ctx: StepContext) -> Notified:
        await self._mailer.send(ctx.idempotency_key, inp.order_id, inp.recipient, inp.subject)
        return Notified(recipient=inp.recipient)
