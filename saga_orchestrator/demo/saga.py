"""The order saga: its table, its definition, and an orchestrator that knows it."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from .. import ExponentialRetry, InputContext, SagaBuilder, SagaDefinition, SagaOrchestrator, SagaStateMixin
from .books import Books
from .orders import Order
from .participants import Participants
from .steps import BookCourier, Booking, ChargeCard, ConfirmOrder, Notice, NotifyCustomer, Receipt, ReserveStock

NAME = "order"
LEASE = timedelta(seconds=2)
"""How long the sagas of a killed worker lie still. Short, because the audience waits for it."""
BANK_TIMEOUT = timedelta(seconds=1)

_SOON = timedelta(milliseconds=50)
_A_FEW = ExponentialRetry(max_attempts=4, base_delay=_SOON)
_TWICE = ExponentialRetry(max_attempts=2, base_delay=_SOON)
_STUBBORN = ExponentialRetry(max_attempts=20, base_delay=_SOON, max_delay=timedelta(seconds=2))


class Base(DeclarativeBase):
    """The tables of the sagas."""


class OrderSaga(Base, SagaStateMixin):
    """One saga per order; its `aggregation_id` is the order's id."""

    __tablename__ = "demo_sagas"


def order_saga(participants: Participants) -> SagaDefinition:
    """Return the definition of the order saga."""
    builder = SagaBuilder()
    builder.add_step(
        step_id="reserve",
        step=ReserveStock(participants.warehouse),
        input_map=_order,
        retry_policy=_A_FEW,
        compensation_retry=_STUBBORN,
    )
    charged = builder.add_step(
        step_id="charge",
        step=ChargeCard(participants.bank),
        input_map=_order,
        timeout=BANK_TIMEOUT,
        retry_policy=_TWICE,
        compensation_retry=_STUBBORN,
    )
    builder.add_step(step_id="confirm", step=ConfirmOrder(participants.shop), input_map=_order, retry_policy=_STUBBORN)
    booked = builder.add_step(
        step_id="courier", step=BookCourier(participants.courier), input_map=_order, retry_policy=_STUBBORN
    )
    builder.add_step(
        step_id="notify",
        step=NotifyCustomer(participants.mailer),
        input_map=_notice,
        depends_on=[charged, booked],
        retry_policy=_STUBBORN,
    )
    return builder.build()


def orchestrator_on(engine: AsyncEngine, books: Books) -> SagaOrchestrator[OrderSaga]:
    """Return an orchestrator of order sagas whose participants write these books."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    orchestrator = SagaOrchestrator[OrderSaga](model_class=OrderSaga, session_maker=sessions, execution_lease=LEASE)
    orchestrator.register(NAME, order_saga(Participants.on(books)))
    return orchestrator


def _order(ctx: InputContext) -> Order:
    return Order.model_validate(ctx.initial_data)


def _notice(paid: Receipt, booked: Booking) -> Notice:
    subject = f"Order {booked.order_id} is on its way ({booked.tracking_id}); {paid.cents / 100:.2f} paid"
    return Notice(order_id=booked.order_id, recipient=paid.customer, subject=subject)
