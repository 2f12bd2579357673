"""What those systems could do, and this one does too: the capabilities that no other test proves from end to end.

The letters and numbers are those of docs/reference/feature-matrix.md.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import ForeignKey, String, event, select
from sqlalchemy.orm import Mapped, mapped_column, relationship, selectinload

import saga_orchestrator
from saga_orchestrator import (
    BaseStep,
    Event,
    ExponentialRetry,
    FixedRetry,
    HistoryEntry,
    InputContext,
    OutcomeUnknown,
    SagaBuilder,
    SagaError,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStatus,
    StepContext,
    StepKind,
    WaitFor,
)
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    Asked,
    Base,
    MortalStore,
    OneWay,
    OrderSaga,
    Receipt,
    Scene,
    Undoable,
    UndoableBlindly,
    admin_of,
    asked,
    fails,
    forever,
    mortal,
    saga,
    until_awaiting,
)

AGAIN = FixedRetry(max_attempts=9, delay=SECOND)
BRIEF = timedelta(milliseconds=1)
NO = fails(ValueError("no truck"))


class Ticket(Base):
    """A row of the application's own."""

    __tablename__ = "ticket"

    number: Mapped[str] = mapped_column(String(20), primary_key=True)
    sagas: Mapped[list[TicketSaga]] = relationship(back_populates="about")


class TicketSaga(Base, SagaStateMixin):
    """A second kind of sagas in the same database, joined to the application's own rows."""

    __tablename__ = "ticket_saga"

    ticket: Mapped[str | None] = mapped_column(ForeignKey("ticket.number"))
    about: Mapped[Ticket | None] = relationship(back_populates="sagas")


# --- definitions ------------------------------------------------------------------------------------------------------


async def test_p2_a_compensation_gets_what_was_recorded_and_not_what_is_true_by_now(
    scene: Scene, ledger: list[str]
) -> None:
    """In another process, years later, `compensate` sees the input and output of then, as the models that they were."""
    seen: list[Any] = []
    rate = [1]

    class Convert(BaseStep[Asked, Receipt]):
        async def execute(self, inp: Asked) -> Receipt:
            return Receipt(number=f"{inp.order_id}/{rate[0]}")

        async def compensate(self, inp: Asked, out: Receipt) -> None:
            seen.append((inp, out))

    builder = SagaBuilder()
    builder.add_step(step=Convert(), input_map=lambda _: Asked(order_id=f"rate {rate[0]}"), step_id="convert")
    charge = OneWay("charge", ledger, does=fails(ConnectionError("down")))
    builder.add_step(step=charge, input_map=asked, retry_policy=FixedRetry(2, SECOND))
    definition = builder.build()
    saga_id = await scene.orchestrator(definition).start(**ORDER)
    rate[0] = 2
    scene.pass_time()
    assert await scene.orchestrator(definition).run_due() == 1
    assert seen == [(Asked(order_id="rate 1"), Receipt(number="rate 1/1"))]
    assert (await scene.orchestrator(definition).get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("restored", [False, True], ids=["live", "restored"])
async def test_p6_f7_an_input_map_sees_the_same_whether_its_saga_is_live_or_restored(
    scene: Scene, ledger: list[str], restored: bool
) -> None:
    """A root's map gets an InputContext; any other gets the typed outputs of whichever earlier steps it names."""
    seen: list[Any] = []

    def root(context: InputContext) -> Asked:
        seen.append((context.initial_data, dict(context.step_outputs), dict(context.context), context.latest_event))
        return Asked()

    def both(b: Receipt, a: Receipt) -> Asked:
        seen.append((b, a))
        return Asked()

    builder = SagaBuilder()
    a = builder.add_step(step=Undoable("a", ledger), input_map=asked, step_id="a")
    b = builder.add_step(step=Undoable("b", ledger), input_map=asked, step_id="b")
    builder.add_step(step=Undoable("c", ledger), input_map=asked, step_id="c")
    last = Undoable("d", ledger, does=fails(ConnectionError("down"), ConnectionError("down")))
    builder.add_step(step=last, depends_on=[b, a], input_map=both, step_id="d", retry_policy=FixedRetry(3, SECOND))
    builder.add_step(step=OneWay("e", ledger), input_map=root, step_id="e")
    definition = builder.build()
    saga_id = await scene.orchestrator(definition).start(**ORDER)
    same = scene.orchestrator(definition)
    for _ in range(2):
        scene.pass_time()
        assert await (scene.orchestrator(definition) if restored else same).run_due() == 1
    assert (await same.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    outputs = {each: {"number": f"{each}-o-1"} for each in "abcd"}
    context = {"saga_name": NAME, "initial_data": {"order_id": "o-1"}, "step_outputs": outputs}
    typed = (Receipt(number="b-o-1"), Receipt(number="a-o-1"))
    assert seen == [typed, typed, typed, ({"order_id": "o-1"}, outputs, context, None)]


async def test_p9_versions_of_one_name_live_side_by_side(scene: Scene, ledger: list[str]) -> None:
    """New sagas start with the newest version, and one that runs already keeps its own."""
    older = saga(OneWay("old", ledger, does=fails(ValueError(), ValueError())), retry_policy=AGAIN)
    first = await scene.orchestrator(older).start(**ORDER)
    both = scene.orchestrator(saga(OneWay("old", ledger), retry_policy=AGAIN))
    both.register(NAME, saga(OneWay("new", ledger), version=2))
    second = await both.start(**{**ORDER, "aggregation_id": "o-2"})
    scene.pass_time()
    assert await both.run_due() == 1
    assert ledger == ["new", "old"]
    assert [(await both.get_snapshot(i)).definition_version for i in (first, second)] == [1, 2]


async def test_f10_steps_run_in_the_order_of_the_graph_and_are_undone_in_its_reverse(
    timeless: Scene, ledger: list[str]
) -> None:
    """Where edges are silent the order of adding decides, every time the same."""
    builder = SagaBuilder()
    root = builder.add_step(step=Undoable("a", ledger), input_map=asked, step_id="a")
    with builder.parallel():
        for name in ("d", "c", "b"):
            builder.add_step(step=Undoable(name, ledger), input_map=asked, step_id=name, after=root)
    builder.add_step(step=OneWay("z", ledger, does=NO), input_map=asked, step_id="z")
    definition = builder.build()
    assert definition.graph.order == ("a", "d", "c", "b", "z")
    await timeless.orchestrator(definition).start(**ORDER)
    assert ledger == ["a", "d", "c", "b", "undo b", "undo c", "undo d", "undo a"]


# --- running ----------------------------------------------------------------------------------------------------------


async def test_p10_sagas_of_several_tables_live_in_one_database_and_join_its_rows(
    scene: Scene, ledger: list[str]
) -> None:
    """Each orchestrator has its table; the user's own columns are filled at the start and can be joined."""
    async with scene.sessions.begin() as session:
        session.add(Ticket(number="t-1"))
    orders = scene.orchestrator(saga(OneWay("a", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN))
    tickets = SagaOrchestrator[TicketSaga](model_class=TicketSaga, session_maker=scene.sessions, clock=scene.clock)
    tickets.register(NAME, saga(OneWay("a", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN))
    mine = await orders.start(**ORDER)
    theirs = await tickets.start(**ORDER, values={"ticket": "t-1"})
    joined = (
        select(TicketSaga.id).join(Ticket, Ticket.number == TicketSaga.ticket).where(TicketSaga.awaiting == "retry")
    )
    async with scene.sessions() as session:
        assert list((await session.execute(joined)).scalars()) == [theirs]
        assert list((await session.execute(select(OrderSaga.id))).scalars()) == [mine]
    await tickets.aclose()


async def test_p11_start_makes_up_a_trace_id_and_raises_nothing_that_a_step_did(
    timeless: Scene, ledger: list[str]
) -> None:
    """Any kind of initial data will do: a model, a dict, a list, a text, nothing."""

    class Wanted(BaseModel):
        items: list[int]

    kinds = {
        "model": (Wanted(items=[1]), {"items": [1]}),
        "list": ([1, None], [1, None]),
        "text": ("hello", "hello"),
        "nothing": (None, None),
    }
    builder = SagaBuilder()
    builder.add_step(step=OneWay("a", ledger, does=NO), input_map=lambda _: Asked())
    orchestrator = timeless.orchestrator(builder.build())
    traces = set()
    for aggregate, (given, kept) in kinds.items():
        saga_id = await orchestrator.start(saga_name=NAME, initial_data=given, aggregation_id=aggregate)
        found = await admin_of(orchestrator).get_saga(saga_id)
        assert (found.status, found.context["initial_data"]) == (SagaStatus.FAILED, kept)
        traces.add(found.trace_id)
    assert len(traces) == 4
    saga_id = await orchestrator.start(**ORDER, trace_id="request-1")
    assert (await orchestrator.get_snapshot(saga_id)).trace_id == "request-1"


async def test_p14_a_retry_outlives_its_process_and_success_forgets_it(scene: Scene, ledger: list[str]) -> None:
    """Counter, error, timer and token of a pause are in the row; the next success resets them."""
    policy = ExponentialRetry(max_attempts=3, base_delay=SECOND)
    down = fails(ConnectionError("down"), ConnectionError("down"))
    definition = saga(OneWay("a", ledger, does=down), retry_policy=policy)
    saga_id = await scene.orchestrator(definition).start(**ORDER)
    tokens = set()
    assert scene.clock is not None
    for failures, pause in ((1, 1), (2, 2)):
        found = await scene.orchestrator(definition).get_snapshot(saga_id)
        assert (found.status, found.awaiting, found.retry_counter) == (SagaStatus.SUSPENDED, "retry", failures)
        assert (found.last_error, found.deadline_at) == ("ConnectionError('down')", scene.clock.now() + pause * SECOND)
        tokens.add(found.step_execution_token)
        assert await scene.orchestrator(definition).run_due() == 0
        scene.pass_time(pause * SECOND)
        assert await scene.orchestrator(definition).run_due() == 1
    found = await scene.orchestrator(definition).get_snapshot(saga_id)
    assert (found.status, found.retry_counter, found.last_error) == (SagaStatus.COMPLETED, 0, None)
    assert len(tokens) == 2


@pytest.mark.parametrize("commits", [True, False], ids=["after-its-commit", "before-its-commit"])
async def test_p18_a_rollback_goes_on_where_a_crash_left_it(scene: Scene, ledger: list[str], commits: bool) -> None:
    """Its progress is durable after each undo: what is known to be undone is not undone again."""
    definition = saga(*(Undoable(name, ledger) for name in "abc"), OneWay("d", ledger, does=NO))
    store = MortalStore(scene.store(), survives=5, commits=commits)
    doomed, heir = scene.orchestrator(definition, store=store), scene.orchestrator(definition)
    async with mortal(lambda: doomed.start(**ORDER)):
        await store.dead.wait()
    assert ledger == ["a", "b", "c", "undo c"]
    scene.pass_time()
    assert await heir.run_due() == 1
    (found,) = (await admin_of(heir).list_sagas()).items
    assert found.status is SagaStatus.COMPENSATED
    assert ledger == ["a", "b", "c", "undo c", *([] if commits else ["undo c"]), "undo b", "undo a"]


async def test_p21_p22_q1_the_history_says_all_and_can_be_joined(scene: Scene, ledger: list[str]) -> None:
    """A row for each attempt, in a table of its own: what it was called with, what came of it, and when."""
    down = fails(ConnectionError("down"), ConnectionError("down"))
    definition = saga(Undoable("a", ledger), OneWay("b", ledger, does=down), retry_policy=FixedRetry(2, SECOND))
    orchestrator = scene.orchestrator(definition)
    saga_id = await orchestrator.start(**ORDER)
    scene.pass_time()
    await orchestrator.run_due()
    found = await admin_of(orchestrator).get_saga(saga_id)
    keys = ("phase", "status", "step_id", "step_name", "attempt", "input", "output", "error", "skipped")
    asked_for = {"order_id": "o-1"}
    assert [tuple(entry[key] for key in keys) for entry in found.step_history] == [
        ("EXECUTE", "SUCCESS", "a", "Undoable", 1, asked_for, {"number": "a-o-1"}, None, False),
        ("EXECUTE", "ERROR", "b", "OneWay", 1, asked_for, None, "ConnectionError('down')", False),
        ("EXECUTE", "ERROR", "b", "OneWay", 2, asked_for, None, "ConnectionError('down')", False),
        ("COMPENSATE", "SUCCESS", "a", "Undoable", 1, asked_for, None, None, False),
    ]
    assert all(entry.timestamp and entry.started_at and entry.token for entry in found.step_history)
    assert found.context == {"saga_name": NAME, "initial_data": asked_for, "step_outputs": {"a": {"number": "a-o-1"}}}
    rows = await scene.sql(
        "SELECT h.step_id FROM order_saga s JOIN order_saga_history h ON h.saga_id = s.id "
        "WHERE s.saga_name = 'order' AND h.phase = 'COMPENSATE' AND h.status = 'SUCCESS'"
    )
    assert [tuple(row) for row in rows] == [("a",)]


def test_p27_every_error_has_one_root_and_its_old_name() -> None:
    """Whoever caught an error of 0.1.0 catches it here."""
    ancestry = {
        "SagaDefinitionError": "SagaError",
        "TypeValidationError": "SagaDefinitionError",
        "SagaNotFoundError": "SagaError",
        "ActiveSagaAlreadyExistsError": "SagaError",
        "SagaStateError": "SagaError",
    }
    for name, parent in ancestry.items():
        assert issubclass(getattr(saga_orchestrator, name), getattr(saga_orchestrator, parent))
    errors = [v for v in vars(saga_orchestrator).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert all(issubclass(error, SagaError) for error in errors)


async def test_d12_the_history_is_only_added_to_and_is_what_a_saga_goes_on_from(
    scene: Scene, ledger: list[str]
) -> None:
    """Retries, orders and undos add rows, and change none; what a row says was done is not done again by anybody."""
    seen: list[Receipt] = []

    def look(out: Receipt) -> Asked:
        seen.append(out)
        return Asked()

    builder = SagaBuilder(compensate_on_failure=False)
    a = builder.add_step(step=Undoable("a", ledger), input_map=asked, step_id="a")
    b = OneWay("b", ledger, does=fails(ConnectionError("down"), ConnectionError("down"), ValueError("no")))
    builder.add_step(step=b, input_map=look, depends_on=a, step_id="b", retry_policy=FixedRetry(3, SECOND))
    definition = builder.build()
    saga_id = await scene.orchestrator(definition).start(**ORDER)
    rows: list[HistoryEntry] = []

    async def added() -> list[tuple[Any, ...]]:
        before = len(rows)
        found = list((await admin_of(scene.orchestrator(definition)).get_saga(saga_id)).step_history)
        assert found[:before] == rows
        rows[:] = found
        return [(each.phase, each.step_id, each.status, each.actor, each.reason) for each in found[before:]]

    assert await added() == [("EXECUTE", "a", "SUCCESS", None, None), ("EXECUTE", "b", "ERROR", None, None)]
    for _ in range(2):
        scene.pass_time()
        assert await scene.orchestrator(definition).run_due() == 1
        assert await added() == [("EXECUTE", "b", "ERROR", None, None)]
    await admin_of(scene.orchestrator(definition)).compensate_step(saga_id, actor="ada", reason="not wanted")
    await added()
    assert [(each.phase, each.actor, each.reason) for each in rows[4:]] == [
        ("ORDER", "ada", "not wanted"),
        ("COMPENSATE", None, None),
    ]
    assert (ledger, seen) == (["a", "undo a"], [Receipt(number="a-o-1")] * 3)
    told = await scene.sql("SELECT step_id FROM order_saga_history ORDER BY timestamp, seq")
    assert [step_id for (step_id,) in told] == [each.step_id for each in rows]


async def test_q2_what_a_step_was_asked_for_is_kept_apart_from_the_event_that_wakes_it(
    scene: Scene, ledger: list[str]
) -> None:
    """Whatever has changed since it asked, in whatever process: its input is that of then, its event that of now."""
    rate, seen = ["then"], []

    class Ask(BaseStep[Asked, Receipt]):
        async def execute(self, inp: Asked) -> Receipt | WaitFor:
            seen.append((inp.order_id, None))
            inp.order_id = "spoilt"
            return WaitFor("answered")

        async def on_event(self, inp: Asked, event: Event[Any], ctx: StepContext) -> Receipt | None:
            seen.append((inp.order_id, event.payload))
            inp.order_id = "spoilt"
            return None if ctx.phase == "compensate" else Receipt(number="1")

        async def compensate(self, inp: Asked, out: Receipt) -> WaitFor:
            seen.append((inp.order_id, out.number))
            return WaitFor("taken back")

    builder = SagaBuilder()
    builder.add_step(step=Ask(), input_map=lambda _: Asked(order_id=rate[0]), step_id="ask")
    builder.add_step(step=OneWay("ship", ledger, does=NO), input_map=asked)
    definition = builder.build()
    one, other = scene.orchestrator(definition), scene.orchestrator(definition)
    saga_id = await one.start(**ORDER)
    rate[0] = "now"
    assert await other.signal("answered", saga_id=saga_id, payload={"n": 1}) == "APPLIED"
    await until_awaiting(one, saga_id, "event:taken back")
    assert await one.signal("taken back", saga_id=saga_id, payload={"n": 2}) == "APPLIED"
    assert (await one.result(saga_id, timeout=20 * SECOND)).status is SagaStatus.COMPENSATED
    assert seen == [("then", None), ("then", {"n": 1}), ("then", "1"), ("then", {"n": 2})]


# --- what no other system has -----------------------------------------------------------------------------------------


async def test_n4_past_the_pivot_nothing_is_undone(timeless: Scene, ledger: list[str]) -> None:
    """What fails afterwards is tried again, and then waits for a person, who may go forward only."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    builder.add_step(step=OneWay("charge", ledger), input_map=asked, step_id="charge", kind=StepKind.PIVOT)
    ship = OneWay("ship", ledger, does=NO)
    builder.add_step(step=ship, input_map=asked, step_id="ship", kind="RETRIABLE", retry_policy=FixedRetry(2, SECOND))
    orchestrator = timeless.orchestrator(builder.build())
    admin = admin_of(orchestrator)
    saga_id = await orchestrator.start(**ORDER)
    timeless.pass_time()
    await orchestrator.run_due()
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.STUCK
    for order in (admin.compensate_step, admin.cancel):
        with pytest.raises(saga_orchestrator.SagaStateError, match="pivot"):
            await order(saga_id)
    ship.does = fails()
    await admin.retry_step(saga_id)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert ledger == ["reserve", "charge", "ship"]


class Charge(UndoableBlindly):
    """A charge that can be asked for: the bank's answer is what `found` says."""

    found: Any = None

    async def probe(self, inp: Asked, ctx: StepContext) -> Receipt | None:
        self.ledger.append("probe")
        if isinstance(self.found, Exception):
            raise self.found
        return self.found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("found", "status", "calls"),
    [
        (Receipt(number="r-1"), SagaStatus.COMPLETED, ["reserve", "probe"]),
        (None, SagaStatus.COMPENSATED, ["reserve", "probe", "probe", "undo reserve"]),
        (
            OutcomeUnknown("no line"),
            SagaStatus.COMPENSATED,
            ["reserve", "probe", "probe", "undo charge without output", "undo reserve"],
        ),
    ],
    ids=["done", "not done", "unknown"],
)
async def test_n5_a_probe_settles_what_a_timeout_left_in_doubt(
    scene: Scene, ledger: list[str], found: Any, status: SagaStatus, calls: list[str]
) -> None:
    """Done: its output counts, and nothing is executed again. Not done: it did not act. Unknown: it may have."""
    charge = Charge("charge", ledger, does=forever)
    charge.found = found
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    builder.add_step(step=charge, input_map=asked, step_id="charge", timeout=BRIEF, retry_policy=FixedRetry(2, SECOND))
    orchestrator = scene.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    if status is SagaStatus.COMPENSATED:
        scene.pass_time()
        assert await orchestrator.run_due() == 1
    assert ((await orchestrator.get_snapshot(saga_id)).status, ledger) == (status, calls)
    if status is SagaStatus.COMPLETED:
        assert (await orchestrator.result(saga_id)).outputs["charge"] == {"number": "r-1"}


async def test_n5_a_doubt_outlives_a_later_clean_failure(timeless: Scene, ledger: list[str]) -> None:
    """An earlier attempt may have acted, so a last attempt that surely did not changes nothing about the undo."""
    calls = []

    async def first_silence_then_no(ctx: StepContext) -> None:
        calls.append(ctx.in_doubt)
        if len(calls) == 1:
            raise OutcomeUnknown("the line broke")
        raise ValueError("declined")

    charge = UndoableBlindly("charge", ledger, does=first_silence_then_no)
    orchestrator = timeless.orchestrator(saga(charge, retry_policy=FixedRetry(2, SECOND)))
    saga_id = await orchestrator.start(**ORDER)
    timeless.pass_time()
    await orchestrator.run_due()
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert (calls, ledger) == ([False, True], ["undo charge without output"])


async def test_n6_five_crashes_and_three_retries_have_one_key(scene: Scene, ledger: list[str]) -> None:
    """The key of a step never changes, that of its undo is another, and neither depends on the process."""
    asks = [0]

    async def flaky(ctx: StepContext) -> None:
        asks[0] += 1
        if asks[0] in (5, 6, 7):
            raise ConnectionError("down")

    builder = SagaBuilder(max_recoveries=9)
    charge = Undoable("charge", ledger, does=flaky)
    builder.add_step(step=charge, input_map=asked, step_id="charge", retry_policy=FixedRetry(9, timedelta(0)))
    builder.add_step(step=OneWay("ship", ledger, does=NO), input_map=asked, step_id="ship")
    definition = builder.build()
    for crash in range(5):
        store = MortalStore(scene.store(), survives=0, commits=not crash)
        doomed = scene.orchestrator(definition, store=store)
        work = partial(doomed.run_due) if crash else partial(doomed.start, **ORDER)
        async with mortal(work):
            await store.dead.wait()
        scene.pass_time()
    heir = scene.orchestrator(definition)
    assert await heir.run_due() == 1
    (found,) = (await admin_of(heir).list_sagas()).items
    assert found.status is SagaStatus.COMPENSATED
    keys = [ctx.idempotency_key for ctx in charge.seen]
    assert len(keys) == 9
    assert list(dict.fromkeys(keys)) == [f"{found.id}/charge/execute", f"{found.id}/charge/compensate"]


async def test_n9_compensated_is_what_the_history_proves(scene: Scene, ledger: list[str]) -> None:
    """For each saga: every effect in the history has an undo in the history, or its step stands in the residue."""
    cases = {
        "clean": [Undoable("a", ledger), Undoable("b", ledger), OneWay("c", ledger, does=NO)],
        "in doubt": [Undoable("a", ledger), UndoableBlindly("b", ledger, does=fails(OutcomeUnknown("?")))],
        "undo fails": [Undoable("a", ledger), Undoable("b", ledger, undoes=NO), OneWay("c", ledger, does=NO)],
        "first fails": [Undoable("a", ledger, does=NO)],
        "in doubt for good": [Undoable("a", ledger), Undoable("b", ledger, does=fails(OutcomeUnknown("?")))],
    }
    orchestrator = scene.orchestrator()
    for name, steps in cases.items():
        orchestrator.register(name, saga(*steps))
        saga_id = await orchestrator.start(saga_name=name, initial_data={}, aggregation_id=name)
        found = await admin_of(orchestrator).get_saga(saga_id)
        effects = {e.step_id for e in found.step_history if e.phase == "EXECUTE" and e.status != "ERROR"}
        undone = {e.step_id for e in found.step_history if e.phase == "COMPENSATE" and e.status == "SUCCESS"}
        assert effects - undone == set(found.residue), name
        assert (found.status is SagaStatus.COMPENSATED) == (bool(undone) and not found.residue), name


async def test_n18_a_cancelled_saga_is_undone_from_a_known_outcome(scene: Scene, ledger: list[str]) -> None:
    """`cancel` is durable when it returns; the step in flight ends, and is undone like any other."""
    began, finish = asyncio.Event(), asyncio.Event()

    async def slow(ctx: StepContext) -> None:
        began.set()
        await finish.wait()

    definition = saga(Undoable("a", ledger), Undoable("b", ledger, does=slow), OneWay("c", ledger))
    orchestrator = scene.orchestrator(definition)
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await began.wait()
    (found,) = (await admin_of(orchestrator).list_sagas()).items
    await admin_of(orchestrator).cancel(found.id, actor="ada", reason="the customer rang")
    assert (await orchestrator.get_snapshot(found.id)).status is SagaStatus.COMPENSATING
    finish.set()
    await starting
    assert (await orchestrator.get_snapshot(found.id)).status is SagaStatus.COMPENSATED
    assert ledger == ["a", "b", "undo b", "undo a"]


async def test_n15_the_applications_rows_are_asked_for_by_their_sagas_in_one_statement(
    scene: Scene, ledger: list[str]
) -> None:
    """Relationships lead from a row to its sagas, and on to their history; what a saga waits for is a column."""
    async with scene.sessions.begin() as session:
        session.add_all([Ticket(number="t-1"), Ticket(number="t-2"), Ticket(number="t-3")])
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    builder.add_event("payment", step_id="pay")
    tickets = SagaOrchestrator[TicketSaga](model_class=TicketSaga, session_maker=scene.sessions, clock=scene.clock)
    tickets.register(NAME, builder.build())
    for number in ("t-1", "t-2"):
        saga_id = await tickets.start(**{**ORDER, "aggregation_id": number}, values={"ticket": number})
    await tickets.signal("payment", saga_id=saga_id, payload={})
    await tickets.result(saga_id, timeout=20 * SECOND)
    said: list[str] = []
    event.listen(scene.engine.sync_engine, "before_cursor_execute", lambda _, __, sql, *___: said.append(sql))
    async with scene.sessions() as session:
        unpaid = select(Ticket.number).where(Ticket.sagas.any(awaiting="event:payment"))
        assert list(await session.scalars(unpaid)) == ["t-1"]
        paid = select(Ticket.number).where(Ticket.sagas.any(status=SagaStatus.COMPLETED))
        assert list(await session.scalars(paid)) == ["t-2"]
        assert len(said) == 2
        progress = (
            select(TicketSaga).where(TicketSaga.about.has(number="t-1")).options(selectinload(TicketSaga.step_history))
        )
        found = (await session.scalars(progress)).one()
        assert (found.status, found.current_step_index) == (SagaStatus.SUSPENDED, 1)
        assert [(row.step_id, row.status) for row in found.step_history] == [("reserve", "SUCCESS"), ("pay", "WAITING")]
    await tickets.aclose()
