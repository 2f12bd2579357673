"""One run from beginning to end. Read it first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO
from uuid import UUID

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from .. import SagaAdmin, SagaOrchestrator
from .audit import Ledger, find_faults, money, read_ledger
from .books import Books
from .claims import find_lies, read_claims
from .crew import Crew
from .database import DemoError, open_engine, prepare
from .orders import Order, read_orders, read_stock
from .placing import place
from .progress import Screen
from .saga import OrderSaga, orchestrator_on
from .timeline import find_timelines
from .watch import Watch

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run, and where."""

    url: URL
    orders: int = 200
    workers: int = 2


async def run_demo(settings: Settings, out: TextIO) -> int:
    """Run the orders, tell what happened, and return the exit code: 0 if the audit finds nothing wrong.

    Raises:
        DemoError: The run could not be made.
    """
    engine, orders, screen = open_engine(settings.url), read_orders(settings.orders), Screen(out)
    screen.say(f"Database: {settings.url.render_as_string(hide_password=True)}")
    try:
        await _prepare(engine, settings.orders)
        # The participants are for the workers: this process calls none of them.
        async with orchestrator_on(engine, Books(engine)) as orchestrator:
            orphans = await _run_orders(settings, orchestrator, engine, orders, screen)
            await _tell(orchestrator, orders, orphans, screen)
        return await conclude(engine, screen)
    finally:
        await engine.dispose()


async def _prepare(engine: AsyncEngine, orders: int) -> None:
    try:
        await prepare(engine, read_stock(orders))
    except (OSError, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise DemoError(f"The database cannot be used: {cause}") from error


async def _run_orders(
    settings: Settings,
    orchestrator: SagaOrchestrator[OrderSaga],
    engine: AsyncEngine,
    orders: Sequence[Order],
    screen: Screen,
) -> Sequence[UUID]:
    """Place the orders, have workers drive them to their ends, and return the sagas that lost theirs."""
    async with Crew(settings.url) as crew:
        await crew.hire(settings.workers)
        screen.say(f"Workers:  {', '.join(str(pid) for pid in sorted(crew.pids))}")
        screen.say(f"Orders:   {len(orders)}, each written with its saga in one transaction\n")
        await place(engine, orchestrator, orders)
        watch = Watch(engine, crew, screen, len(orders))
        await watch.until_all_ended()
        return watch.orphans or ()


async def _tell(
    orchestrator: SagaOrchestrator[OrderSaga], orders: Sequence[Order], orphans: Sequence[UUID], screen: Screen
) -> None:
    screen.say("\nOne timeline of each kind")
    for line in await find_timelines(SagaAdmin[OrderSaga](engine=orchestrator.engine), orders, orphans):
        screen.say(line)


async def conclude(engine: AsyncEngine, screen: Screen) -> int:
    """Audit the participants' tables, hold the sagas' claims against them, and return the exit code."""
    ledger = await read_ledger(engine)
    wrong = find_faults(ledger) + find_lies(ledger, await read_claims(engine))
    screen.say("\nAudit of the participants' tables")
    for line in _sums(ledger):
        screen.say(f"  {line}")
    for fault in wrong[:_MOST_SHOWN]:
        screen.say(f"  WRONG  {fault}")
    if len(wrong) > _MOST_SHOWN:
        screen.say(f"  ... and {len(wrong) - _MOST_SHOWN} more")
    screen.say(f"\nThe audit FAILED: {len(wrong)} things are wrong." if wrong else "\nThe audit passed.")
    return 1 if wrong else 0


def _sums(ledger: Ledger) -> list[str]:
    initial, on_hand, delivered = (
        sum(getattr(shelf, name) for shelf in ledger.shelves) for name in ("initial", "on_hand", "delivered")
    )
    captured, refunded = ledger.captured, ledger.refunded
    sold = f"{money(captured - refunded)}; {money(ledger.sales)} delivered"
    return [
        f"orders  {len(ledger.accounts)} placed = {len(ledger.delivered)} delivered + {len(ledger.undone)} undone",
        f"stock   {initial} units at first, {on_hand} on hand, {delivered} delivered",
        f"money   {money(captured)} captured - {money(refunded)} refunded = {sold}",
    ]
