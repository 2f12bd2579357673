"""One history of each kind, as an operator would read it: what happened to an order, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .. import HistoryEntry, SagaAdmin, SagaAdminSnapshot, SagaStatus
from .orders import Order
from .participants.bank import ANSWER_LOST, ANSWER_LOST_ASK_AGAIN, DECLINES, NEVER_ANSWERS
from .participants.courier import OUTAGES
from .saga import OrderSaga

_LOST = "the worker was lost"
_WIDEST = 118


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of history.

    Attributes:
        may: Which orders may have it; their data decides.
        errors: What the history's errors must mention; empty: there must be none.
    """

    title: str
    status: SagaStatus
    may: Callable[[Order], bool]
    errors: str = ""

    def fits(self, saga: SagaAdminSnapshot) -> bool:
        found = " ".join(entry.error for entry in saga.step_history if entry.error)
        return _LOST not in found and (self.errors in found if self.errors else not found)


def _paid_with(card: str) -> Callable[[Order], bool]:
    return lambda order: order.card == card


def _any(_: Order) -> bool:
    return True


KINDS = (
    Kind("Delivered", SagaStatus.COMPLETED, _any),
    Kind(
        "Delivered, after the courier was down",
        SagaStatus.COMPLETED,
        lambda order: order.city in OUTAGES,
        "CourierDown",
    ),
    Kind("Declined", SagaStatus.COMPENSATED, _paid_with(DECLINES), "CardDeclined"),
    Kind("Sold out, before anything had acted", SagaStatus.FAILED, _any, "SoldOut"),
    Kind(
        "Timed out after charging; the bank was asked, and knew the charge",
        SagaStatus.COMPLETED,
        _paid_with(ANSWER_LOST),
        "timed out",
    ),
    Kind(
        "Timed out after charging; called again under the same key",
        SagaStatus.COMPLETED,
        _paid_with(ANSWER_LOST_ASK_AGAIN),
        "OutcomeUnknown",
    ),
    Kind(
        "Timed out after charging, and never answered; refunded without an answer",
        SagaStatus.COMPENSATED,
        _paid_with(NEVER_ANSWERS),
        "OutcomeUnknown",
    ),
)


async def find_timelines(admin: SagaAdmin[OrderSaga], orders: Sequence[Order], orphans: Iterable[UUID]) -> list[str]:
    """Return a timeline of each kind, and of one of the `orphans`: the sagas whose worker was killed."""
    lines: list[str] = []
    for kind in KINDS:
        saga = await _first(admin, kind, orders)
        lines += ["", *(_told(kind.title, saga) if saga else [f"{kind.title}: none in this run"])]
    taken_over = await _taken_over(admin, orphans)
    title = "Taken over after the kill"
    return [*lines, "", *(_told(title, taken_over) if taken_over else [f"{title}: none in this run"])]


async def _first(admin: SagaAdmin[OrderSaga], kind: Kind, orders: Iterable[Order]) -> SagaAdminSnapshot | None:
    for order in filter(kind.may, orders):
        page = await admin.list_sagas(aggregation_id=order.order_id, status=kind.status)
        for found in page.items:
            saga = await admin.get_saga(found.id)
            if kind.fits(saga):
                return saga
    return None


async def _taken_over(admin: SagaAdmin[OrderSaga], orphans: Iterable[UUID]) -> SagaAdminSnapshot | None:
    """Return the orphan with the longest history of those that lost an attempt."""
    sagas = [await admin.get_saga(saga_id) for saga_id in orphans]
    lost = [saga for saga in sagas if any(_LOST in (entry.error or "") for entry in saga.step_history)]
    return max(lost, key=lambda saga: len(saga.step_history), default=None)


def _told(title: str, saga: SagaAdminSnapshot) -> Iterator[str]:
    yield f"{title}: order {saga.aggregation_id}, saga {saga.id}"
    for entry in saga.step_history:
        yield _line(saga.created_at, entry)
    after = (saga.updated_at - saga.created_at).total_seconds()
    yield f"  {after:7.3f} s  {saga.status.value}"


def _line(begun: datetime, entry: HistoryEntry) -> str:
    after = (entry.timestamp - begun).total_seconds()
    what = f"{entry.phase:<10}  {entry.step_id:<8}  #{entry.attempt}  {entry.status:<8}"
    line = f"  {after:7.3f} s  {what}  {' '.join((entry.error or '').split())}"
    return line.rstrip() if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."
