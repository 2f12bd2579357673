"""`saga demo` from outside, and its audit against books that are wrong: an audit that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
import io
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import pytest
from sqlalchemy import func, insert, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_orchestrator import PermanentError, SagaStatus
from saga_orchestrator.cli import main
from saga_orchestrator.demo import tables
from saga_orchestrator.demo.audit import find_faults, money, read_ledger
from saga_orchestrator.demo.books import Books
from saga_orchestrator.demo.claims import find_lies
from saga_orchestrator.demo.database import open_engine, prepare
from saga_orchestrator.demo.orders import Order, read_orders, read_stock
from saga_orchestrator.demo.participants import Participants
from saga_orchestrator.demo.progress import Counts, Screen
from saga_orchestrator.demo.run import conclude
from saga_orchestrator.demo.saga import OrderSaga

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "import sys; from saga_orchestrator.cli import main; sys.exit(main())", "demo"]
GOODS = {"sku": "lamp", "quantity": 2, "customer": "Ada", "city": "Oslo", "amount_cents": 5900, "card": "4242"}
TRUTH = {"kept": SagaStatus.COMPLETED, "dropped": SagaStatus.COMPENSATED, "refused": SagaStatus.FAILED}


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A shop with ten lamps and no orders, on each kind of database."""
    engine = open_engine(make_url(database_url))
    await prepare(engine, {"lamp": 10})
    yield engine
    await engine.dispose()


@pytest.fixture
async def books(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    """Books written by hand: one order delivered, one charged and undone, and one that came to nothing."""
    engine = open_engine(make_url(sqlite_url))
    await prepare(engine, {"lamp": 10})
    entry = {"order_id": "kept", **{name: GOODS[name] for name in ("sku", "quantity", "city", "card")}}
    entry |= {"cents": 5900, "recipient": "Ada", "subject": "On its way"}
    kept = (tables.reservations, tables.charges, tables.confirmations, tables.bookings, tables.mails)
    dropped = (tables.reservations, tables.releases, tables.charges, tables.refunds)
    async with engine.begin() as connection:
        await connection.execute(insert(tables.orders), [{"order_id": order_id, **GOODS} for order_id in TRUTH])
        for order_id, entries in (("kept", kept), ("dropped", dropped)):
            for table in entries:
                row = {"key": f"{order_id}/1"} | entry | {"order_id": order_id}
                await connection.execute(insert(table).values({column.name: row[column.name] for column in table.c}))
        await connection.execute(text("UPDATE demo_stock SET on_hand = 8"))
        await connection.execute(insert(OrderSaga.__table__), [saga_row(*claim) for claim in TRUTH.items()])
    yield engine
    await engine.dispose()


def saga_row(order_id: str, status: SagaStatus) -> dict[str, object]:
    named = dict.fromkeys(("trace_id", "saga_name", "fingerprint"), "-")
    return {"id": uuid5(NAMESPACE_URL, order_id), "aggregation_id": order_id, "status": status, **named} | {
        "state": {},
        "context": {},
    }


async def tamper(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        assert (await connection.execute(text(statement))).rowcount == 1


async def test_books_that_are_right_pass_the_audit(books: AsyncEngine) -> None:
    out = io.StringIO()

    assert await conclude(books, Screen(out)) == 0
    assert "3 placed = 1 delivered + 2 undone" in out.getvalue()
    assert "118.00 captured - 59.00 refunded = 59.00; 59.00 delivered" in out.getvalue()


CHARGE = "INSERT INTO demo_charges (key, order_id, card, cents) VALUES"
BOOKING = "INSERT INTO demo_bookings (key, order_id, city) VALUES"
MAIL = "INSERT INTO demo_mails (key, order_id, recipient, subject) VALUES"


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("DELETE FROM demo_refunds", "order dropped: not confirmed, but 59.00 of 59.00 charged were not refunded"),
        ("DELETE FROM demo_refunds", "money: captured 118.00 - refunded 0.00 != delivered 59.00"),
        ("UPDATE demo_refunds SET cents = 5899", "0.01 of 59.00 charged were not refunded"),
        ("DELETE FROM demo_releases", "order dropped: not confirmed, but 2 of 2 reserved units were not released"),
        ("DELETE FROM demo_releases", "stock of lamp: 10 at first != 8 on hand + 4 reserved"),
        ("UPDATE demo_stock SET on_hand = 9", "stock of lamp: 10 at first != 9 on hand + 2 delivered"),
        ("DELETE FROM demo_charges WHERE order_id = 'kept'", "order kept: confirmed, but 0.00 charged by 0 calls"),
        (f"{CHARGE} ('again', 'kept', '4242', 5900)", "order kept: confirmed, but 118.00 charged by 2 calls"),
        (f"{CHARGE} ('stray', 'nobody', '4242', 1)", "demo_charges stray: an entry about an order that nobody placed"),
        ("UPDATE demo_charges SET cents = 1 WHERE order_id = 'kept'", "order kept: confirmed, but 0.01 charged by 1"),
        ("DELETE FROM demo_reservations WHERE order_id = 'kept'", "order kept: confirmed, but 0 units reserved by 0"),
        ("DELETE FROM demo_bookings", "order kept: confirmed, but booked with the courier 0 times"),
        (f"{BOOKING} ('again', 'kept', 'Oslo')", "order kept: confirmed, but booked with the courier 2 times"),
        (f"{BOOKING} ('wrong', 'dropped', 'Oslo')", "order dropped: not confirmed, but booked with the courier"),
        ("DELETE FROM demo_mails", "order kept: confirmed, but the customer was notified 0 times"),
        (f"{MAIL} ('again', 'kept', 'Ada', '-')", "order kept: confirmed, but the customer was notified 2 times"),
        (f"{MAIL} ('wrong', 'refused', 'Ada', '-')", "order refused: not confirmed, but the customer was told"),
        ("DELETE FROM demo_confirmations", "order kept: not confirmed, but booked with the courier"),
        (
            "DELETE FROM demo_confirmations",
            "order kept: its saga claims to be COMPLETED, and the order is not confirmed",
        ),
        ("INSERT INTO demo_confirmations VALUES ('again', 'kept')", "order kept: confirmed 2 times"),
        (
            "INSERT INTO demo_confirmations VALUES ('wrong', 'refused')",
            "claims to be FAILED, and the order is confirmed",
        ),
        ("DELETE FROM demo_sagas WHERE aggregation_id = 'kept'", "order kept: it was placed, and has no saga"),
        ("DELETE FROM demo_orders WHERE order_id = 'refused'", "order refused: it has a saga, and was not placed"),
        (
            "UPDATE demo_sagas SET status = 'STUCK', awaiting = 'operator' WHERE aggregation_id = 'dropped'",
            "order dropped: in doubt, its saga is STUCK",
        ),
    ],
)
async def test_the_audit_fails_when_the_books_are_wrong(books: AsyncEngine, statement: str, complaint: str) -> None:
    out = io.StringIO()
    await tamper(books, statement)

    assert await conclude(books, Screen(out)) == 1
    assert complaint in out.getvalue()
    assert "The audit FAILED" in out.getvalue()


async def test_the_audit_believes_no_saga(books: AsyncEngine) -> None:
    ledger = await read_ledger(books)

    assert find_faults(ledger) == []
    assert find_lies(ledger, TRUTH) == []
    assert find_lies(ledger, dict.fromkeys(TRUTH, SagaStatus.COMPLETED)) == [
        f"order {order_id}: its saga claims to be COMPLETED, and the order is not confirmed"
        for order_id in ("dropped", "refused")
    ]


def test_amounts_are_written_as_people_write_them() -> None:
    assert [money(cents) for cents in (0, 5, 123456, -5)] == ["0.00", "0.05", "1,234.56", "-0.05"]


async def test_a_participant_acts_once_per_key(empty: AsyncEngine) -> None:
    order, participants = Order(order_id="a", **GOODS), Participants.on(Books(empty))
    for _ in range(2):
        await participants.warehouse.reserve("a/reserve", order)
        await participants.bank.charge("a/charge", order)
        await participants.shop.confirm("a/confirm", "a")
        await participants.courier.book("a/book", order)
        await participants.mailer.send("a/mail", "a", "Ada", "On its way")
    async with empty.begin() as connection:
        await connection.execute(insert(tables.orders).values(order_id="a", **GOODS))

    assert find_faults(await read_ledger(empty)) == []
    for _ in range(2):
        await participants.warehouse.release("a/release", "a/reserve", order)
        await participants.bank.refund("a/refund", "a/charge", order)
    async with empty.connect() as connection:
        assert await connection.scalar(select(tables.stock.c.on_hand)) == 10
        assert await connection.scalar(select(func.sum(tables.refunds.c.cents))) == 5900


async def test_a_call_that_arrives_after_its_undo_does_nothing(empty: AsyncEngine) -> None:
    order, participants = Order(order_id="late", **GOODS), Participants.on(Books(empty))
    await participants.warehouse.release("late/release", "late/reserve", order)
    await participants.bank.refund("late/refund", "late/charge", order)

    with pytest.raises(PermanentError, match="given up"):
        await participants.warehouse.reserve("late/reserve", order)
    with pytest.raises(PermanentError, match="given up"):
        await participants.bank.charge("late/charge", order)
    async with empty.connect() as connection:
        assert await connection.scalar(select(tables.stock.c.on_hand)) == 10
        assert await connection.scalar(select(func.sum(tables.charges.c.cents))) == 0


def test_the_orders_are_the_same_in_every_run_and_begin_anew_when_they_are_out() -> None:
    orders = read_orders(450)
    first, second = orders[:200], orders[200:400]

    assert read_orders(450) == orders
    assert len({order.order_id for order in orders}) == 450
    assert second == [order.model_copy(update={"order_id": f"{order.order_id}-2"}) for order in first]
    assert read_stock(450) == {sku: 3 * units for sku, units in read_stock(200).items()}


def test_progress_is_a_line_now_and_then_where_lines_cannot_be_overwritten() -> None:
    out = io.StringIO()
    times = iter([100.0, 100.0, 100.5, 102.0, 102.0, 102.1])
    screen = Screen(out, clock=lambda: next(times))
    for completed in (0, 1, 2, 2, 3):
        screen.show(Counts({SagaStatus.RUNNING: 3 - completed, SagaStatus.COMPLETED: completed}), 3)

    assert out.getvalue().splitlines() == [
        f"  0.0 s  [{'.' * 24}]   0 of 3 ended: running 3",
        f"  2.0 s  [{'#' * 16}{'.' * 8}]   2 of 3 ended: running 1, completed 2",
        f"  2.1 s  [{'#' * 24}]   3 of 3 ended: completed 3",
    ]


def test_progress_is_one_line_that_changes_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    screen = Screen(out)
    screen.show(Counts({SagaStatus.RUNNING: 2}), 2)
    screen.show(Counts({SagaStatus.COMPLETED: 1, SagaStatus.STUCK: 1}), 2)
    screen.say("Done.")

    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith("\rDone.\n")
    assert "2 of 2 ended: stuck 1, completed 1" in out.getvalue()


async def test_a_run_survives_its_worker_and_passes_its_audit_until_somebody_tampers(database_url: str) -> None:
    run = await asyncio.create_subprocess_exec(
        *(*COMMAND, "--database-url", database_url, "--orders", "60"), cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    shown, complaints = (stream.decode() for stream in await run.communicate())

    assert (run.returncode, complaints) == (0, "")
    assert "is killed (SIGKILL) with" in shown
    assert "60 placed" in shown
    assert shown.endswith("The audit passed.\n")
    for kind in ("Delivered", "Declined", "Sold out, before anything had acted"):
        assert f"\n{kind}: order A-" in shown
    engine = open_engine(make_url(database_url))
    try:
        await tamper(engine, "DELETE FROM demo_refunds WHERE order_id = 'A-0010'")
        out = io.StringIO()
        assert await conclude(engine, Screen(out)) == 1
    finally:
        await engine.dispose()
    assert "order A-0010: not confirmed, but" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--database-url", "nonsense"], "is no database address"),
        (["--database-url", "postgresql://me@host/shop"], "names the driver 'postgresql'"),
        (
            ["--database-url", "sqlite+aiosqlite:////no/such/folder/demo.db"],
            "in a folder that does not exist: /no/such/folder/demo.db",
        ),
        (["--database-url", "sqlite+aiosqlite://"], "An in-memory SQLite database"),
        (["--database-url", "postgresql+asyncpg://me@127.0.0.1:1/shop"], "The database cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *arguments]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["demo", "--orders", "0"], ["demo", "--workers", "two"], ["dance"], []])
def test_a_command_line_that_makes_no_sense_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: saga" in capsys.readouterr().err


def test_a_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--database-url", "postgresql+asyncpg://me:hush@127.0.0.1:1/shop"]) == 2
    assert "hush" not in "".join(capsys.readouterr())
