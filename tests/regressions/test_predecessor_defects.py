"""What python-saga-orchestrator 0.1.0 got wrong, letter by letter (a to r), each forced and each refuted."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from saga_orchestrator import (
    FixedRetry,
    InputContext,
    SagaBuilder,
    SagaDefinitionError,
    SagaStateError,
    SagaStatus,
    SagaWorker,
)
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    Asked,
    Gate,
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
    scene_on,
)

AGAIN = FixedRetry(max_attempts=5, delay=SECOND)


# --- a: a crash between two steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False], ids=["after-its-commit", "before-its-commit"])
@pytest.mark.parametrize("survives", [1, 2, 3])
async def test_a_crash_between_two_steps_strands_nothing(
    scene: Scene, ledger: list[str], survives: int, commits: bool
) -> None:
    """Wherever the process dies, another one finds the saga by `run_due` alone and brings it to its end."""
    definition = saga(Undoable("reserve", ledger), Undoable("charge", ledger), Undoable("ship", ledger))
    store = MortalStore(scene.store(), survives=survives, commits=commits)
    doomed, heir = scene.orchestrator(definition, store=store), scene.orchestrator(definition)
    async with mortal(lambda: doomed.start(**ORDER)):
        await store.dead.wait()
    ended_before = survives == 3 and commits
    assert await heir.run_due() == 0
    scene.pass_time()
    assert await heir.run_due() == (0 if ended_before else 1)
    (found,) = (await admin_of(heir).list_sagas()).items
    assert found.status is SagaStatus.COMPLETED
    assert list(dict.fromkeys(ledger)) == ["reserve", "charge", "ship"]
    assert len(ledger) == (3 if commits else 4)


async def test_a_row_that_nothing_could_ever_find_is_refused_by_the_database(scene: Scene, ledger: list[str]) -> None:
    """An active saga that is neither due nor waits for anybody cannot be written, not even by hand."""
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    with pytest.raises(IntegrityError, match="never_stranded"):
        await scene.edit(saga_id, status="'RUNNING'", deadline_at="NULL", awaiting="NULL")


# --- b: two active sagas of one aggregate ----------------------------------------------------------------------------


async def test_b_two_interleaved_starts_leave_one_active_saga(scene: Scene, ledger: list[str]) -> None:
    """Of many starts at once, in two processes, one wins; the others are told which saga it is."""
    definition = saga(OneWay("reserve", ledger, does=forever))
    processes = scene.orchestrator(definition), scene.orchestrator(definition)
    starts = [asyncio.create_task(each.start(**ORDER)) for each in processes for _ in range(5)]
    waiting = set(starts)
    while len(waiting) > 1:
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    (active,) = (await admin_of(processes[0]).list_sagas()).items
    refusals = [start.exception() for start in starts if start.done()]
    assert len(refusals) == 9
    assert {getattr(refusal, "saga_id", None) for refusal in refusals} == {active.id}
    await asyncio.gather(*(each.aclose() for each in processes))
    await asyncio.wait(starts)


async def test_b_a_second_active_saga_is_refused_by_the_database_itself(scene: Scene, ledger: list[str]) -> None:
    """The rule is a unique index, so that nobody can get round it, and a lookup by aggregate finds at most one."""
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    async with scene.engine.connect() as connection:
        table = OrderSaga.__table__
        row = (await connection.execute(select(table).where(table.c.id == saga_id))).one()
    with pytest.raises(IntegrityError):
        async with scene.engine.begin() as connection:
            await connection.execute(insert(table).values({**row._asdict(), "id": uuid4()}))


async def test_b_a_new_saga_may_start_when_the_last_one_has_ended(scene: Scene, ledger: list[str]) -> None:
    """The aggregate is free again as soon as its saga is over, however it ended."""
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("sold out"), ValueError()))))
    first = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(first)).status is SagaStatus.FAILED
    assert await orchestrator.start(**ORDER) != first


# --- c: one saga's trouble stops the others --------------------------------------------------------------------------


async def test_c_unregistered_and_poisoned_sagas_stop_none_of_the_others(scene: Scene, ledger: list[str]) -> None:
    """`run_due` passes over a name it does not know, sets aside what makes no sense, and drives the rest."""
    waits = {"retry_policy": FixedRetry(max_attempts=2, delay=SECOND)}
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), **waits))
    orchestrator.register("forgotten", saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), **waits))
    healthy, unknown, poisoned = [
        await orchestrator.start(saga_name=name, initial_data={}, aggregation_id=aggregate)
        for name, aggregate in ((NAME, "healthy"), ("forgotten", "unknown"), (NAME, "poisoned"))
    ]
    await scene.edit(poisoned, state="""'{"v":1,"c":"F","n":1,"s":{"reserve":"?"}}'""", priority="9")
    other = scene.orchestrator(saga(OneWay("reserve", ledger), **waits))
    scene.pass_time()
    assert await other.run_due() == 1
    assert (await other.get_snapshot(healthy)).status is SagaStatus.COMPLETED
    assert (await other.get_snapshot(unknown)).status is SagaStatus.SUSPENDED
    assert (await other.get_snapshot(poisoned)).status is SagaStatus.STUCK
    assert await other.run_due() == 0
    other.register("forgotten", saga(OneWay("reserve", ledger), **waits))
    assert await other.run_due() == 1
    assert (await other.get_snapshot(unknown)).status is SagaStatus.COMPLETED


async def test_c_a_saga_that_kills_its_workers_is_quarantined_and_delays_nobody(
    timeless: Scene, ledger: list[str]
) -> None:
    """After too many owners lost without any progress a saga waits for a person, and the others go on."""
    began = asyncio.Event()

    async def hang(ctx: Any) -> None:
        began.set()
        await forever(ctx)

    definition = saga(OneWay("reserve", ledger, does=hang))
    for _ in range(6):
        store = MortalStore(timeless.store(), survives=1, commits=False)
        doomed = timeless.orchestrator(definition, store=store)

        async def work(doomed: Any = doomed) -> None:
            if (await admin_of(doomed).list_sagas()).items:
                await doomed.run_due()
            else:
                await doomed.start(**ORDER)

        began.clear()
        async with mortal(work):
            await began.wait()
        timeless.pass_time()
    heir = timeless.orchestrator(definition)
    assert await heir.run_due() == 0
    (found,) = (await admin_of(heir).list_sagas()).items
    assert (found.status, found.awaiting) == (SagaStatus.STUCK, "operator")
    assert "quarantined" in (found.last_error or "")


# --- d: a step without compensate ------------------------------------------------------------------------------------


def test_d_an_undeclared_missing_compensation_is_refused_when_the_saga_is_built(ledger: list[str]) -> None:
    """A rollback cannot be halted by a step without `compensate`, because such a saga is never built."""
    with pytest.raises(SagaDefinitionError, match=r"'log' has no compensate, and 'charge' may fail after it"):
        saga(Undoable("reserve", ledger), OneWay("log", ledger), OneWay("charge", ledger))


async def test_d_a_step_with_nothing_to_undo_does_not_halt_the_rollback(timeless: Scene, ledger: list[str]) -> None:
    """A step declared to leave nothing behind is passed on the way back, and the earlier ones are undone."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    builder.add_step(step=OneWay("log", ledger), input_map=asked, step_id="log", compensation=None)
    charge = OneWay("charge", ledger, does=fails(ValueError("declined")))
    builder.add_step(step=charge, input_map=asked, step_id="charge")
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert ledger == ["reserve", "log", "undo reserve"]


# --- e: clean rollback and dirty failure look the same ---------------------------------------------------------------


async def test_e_a_clean_rollback_and_a_dirty_failure_end_differently(scene: Scene, ledger: list[str]) -> None:
    """COMPENSATED, FAILED with nothing left, FAILED with a residue, and STUCK are four different ends."""
    no = fails(ValueError("declined"))
    clean = saga(Undoable("reserve", ledger), Undoable("charge", ledger, does=no))
    untouched = saga(Undoable("reserve", ledger, does=no))
    stuck = saga(Undoable("reserve", ledger, undoes=no), Undoable("charge", ledger, does=no))
    builder = SagaBuilder(compensate_on_failure=False)
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    builder.add_step(step=Undoable("charge", ledger, does=no), input_map=asked, step_id="charge")
    orchestrator = scene.orchestrator()
    ends = []
    for name, definition in (("a", clean), ("b", untouched), ("c", stuck), ("d", builder.build())):
        orchestrator.register(name, definition)
        saga_id = await orchestrator.start(saga_name=name, initial_data={}, aggregation_id=name)
        result = await orchestrator.result(saga_id)
        ends.append((result.status, result.residue))
        assert "declined" in (result.error or "")
    assert ends == [
        (SagaStatus.COMPENSATED, ()),
        (SagaStatus.FAILED, ()),
        (SagaStatus.STUCK, ("reserve",)),
        (SagaStatus.FAILED, ("reserve",)),
    ]


# --- f: the failing step itself --------------------------------------------------------------------------------------


async def test_f_a_charge_that_timed_out_is_refunded(timeless: Scene, ledger: list[str]) -> None:
    """A step that did not answer in time may have acted, so the rollback takes it in."""

    async def charge_and_hang(ctx: Any) -> None:
        ledger.append("charge")
        await forever(ctx)

    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    charge, brief = UndoableBlindly("charge", ledger, does=charge_and_hang), timedelta(milliseconds=1)
    builder.add_step(step=charge, input_map=asked, step_id="charge", timeout=brief)
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    assert ledger == ["reserve", "charge", "undo charge without output", "undo reserve"]
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_f_a_charge_that_cannot_be_refunded_without_its_receipt_is_not_called_undone(
    timeless: Scene, ledger: list[str]
) -> None:
    """Where the undo needs the output that was never learnt, a person is asked, and the rest is undone."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    charge, brief = Undoable("charge", ledger, does=forever), timedelta(milliseconds=1)
    builder.add_step(step=charge, input_map=asked, step_id="charge", timeout=brief)
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.STUCK, ("charge",))
    assert ledger == ["reserve", "undo reserve"]


# --- g: abort(COMPLETED) ---------------------------------------------------------------------------------------------


async def test_g_a_saga_that_is_over_cannot_be_aborted(timeless: Scene, ledger: list[str]) -> None:
    """An order for a saga that is over is refused by name, and changes nothing."""
    orchestrator = timeless.orchestrator(saga(OneWay("reserve", ledger)))
    saga_id = await orchestrator.start(**ORDER)
    before = await admin_of(orchestrator).get_saga(saga_id)
    with pytest.raises(SagaStateError, match=f"{saga_id}.*COMPLETED"):
        await admin_of(orchestrator).abort(saga_id, actor="ada", reason="by mistake")
    assert await admin_of(orchestrator).get_saga(saga_id) == before


# --- h: a step longer than its lease ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("renewed_often")
async def test_h_a_step_longer_than_its_lease_runs_once(scene: Scene, ledger: list[str]) -> None:
    """While its owner lives the lease is renewed, so that nobody else takes the saga."""
    finished = asyncio.Event()

    async def slow(ctx: Any) -> None:
        await finished.wait()

    definition, lease = saga(OneWay("reserve", ledger, does=slow)), 30 * SECOND
    store = scene.store()
    renewed: asyncio.Queue[int] = asyncio.Queue()
    renew = store.renew

    async def watched(*args: Any) -> dict[UUID, int]:
        alive = await renew(*args)
        renewed.put_nowait(len(alive))
        return alive

    store.renew = watched  # type: ignore[method-assign]
    owner = scene.orchestrator(definition, store=store, execution_lease=lease)
    other = scene.orchestrator(definition, execution_lease=lease)
    starting = asyncio.create_task(owner.start(**ORDER))
    for _ in range(2):
        assert await renewed.get() == 1
        scene.pass_time(lease * 0.7)
        assert await other.run_due() == 0
    finished.set()
    assert (await owner.get_snapshot(await starting)).status is SagaStatus.COMPLETED
    assert ledger == ["reserve"]


async def test_h_an_owner_that_has_lost_its_lease_has_no_say(scene: Scene, ledger: list[str]) -> None:
    """What a stale owner's step returns is dropped: the execution token is another's."""
    finish, began = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Any) -> Receipt:
        began.set()
        await finish.wait()
        return Receipt(number="stale")

    owner = scene.orchestrator(saga(UndoableBlindly("reserve", ledger, does=slow)))
    starting = asyncio.create_task(owner.start(**ORDER))
    await began.wait()
    scene.pass_time()
    other = scene.orchestrator(saga(UndoableBlindly("reserve", ledger)))
    assert await other.run_due() == 1
    finish.set()
    result = await other.result(await starting)
    assert result.status is SagaStatus.COMPLETED
    assert result.outputs == {"reserve": {"number": "reserve-o-1"}}


# --- i: max_attempts -------------------------------------------------------------------------------------------------


async def test_i_max_attempts_counts_every_attempt(timeless: Scene, ledger: list[str]) -> None:
    """`max_attempts=3` calls the step three times, the first time included."""
    step = OneWay("reserve", ledger, does=fails(ConnectionError("down")))
    orchestrator = timeless.orchestrator(saga(step, retry_policy=FixedRetry(max_attempts=3, delay=SECOND)))
    saga_id = await orchestrator.start(**ORDER)
    while (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.SUSPENDED:
        timeless.pass_time(SECOND)
        await orchestrator.run_due()
    assert [ctx.attempt for ctx in step.seen] == [1, 2, 3]


# --- j: input_map ----------------------------------------------------------------------------------------------------


async def test_j_an_input_map_that_raises_fails_its_step_and_strands_nothing(
    timeless: Scene, ledger: list[str]
) -> None:
    """Neither does it escape from `start`: the step did not act, and what came before is undone."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    charge = Undoable("charge", ledger)
    builder.add_step(step=charge, input_map=lambda ctx: {"order_id": ctx.initial_data["nope"]}, step_id="charge")
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    result = await orchestrator.result(saga_id)
    assert (result.status, ledger) == (SagaStatus.COMPENSATED, ["reserve", "undo reserve"])
    assert "input_map of step 'charge': KeyError('nope')" in (result.error or "")


# --- k: plain dicts --------------------------------------------------------------------------------------------------


class Colour(Enum):
    """What an Enum in a plain dict looks like."""

    RED = "red"


async def test_k_dates_decimals_uuids_enums_and_bytes_may_stand_in_a_plain_dict(
    scene: Scene, ledger: list[str]
) -> None:
    """`initial_data` need not be JSON already: the ordinary types of Python are written as JSON."""
    seen: list[Any] = []

    def look(context: InputContext) -> Asked:
        seen.append(context.initial_data)
        return Asked()

    builder = SagaBuilder()
    builder.add_step(step=OneWay("reserve", ledger), input_map=look)
    orchestrator = scene.orchestrator(builder.build())
    plain = {
        "at": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        "on": date(2030, 1, 2),
        "price": Decimal("19.90"),
        "id": UUID(int=7),
        "colour": Colour.RED,
        "raw": b"\x00\xff",
        "in": {"a": [Decimal(1)]},
    }
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=plain, aggregation_id="o-1")
    written = {
        "at": "2030-01-02T03:04:05Z",
        "on": "2030-01-02",
        "price": "19.90",
        "id": "00000000-0000-0000-0000-000000000007",
        "colour": "red",
        "raw": "AP8=",
        "in": {"a": ["1"]},
    }
    assert seen == [written]
    assert (await admin_of(orchestrator).get_saga(saga_id)).context["initial_data"] == written


# --- l: reading ------------------------------------------------------------------------------------------------------


async def test_l_a_snapshot_waits_for_nobody(scene: Scene, ledger: list[str]) -> None:
    """Reading a saga takes no lock, so it is not held up by a transaction that has locked the row."""
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    async with scene.store().dialect.writing(scene.engine) as connection:
        await connection.execute(select(OrderSaga.id).where(OrderSaga.id == saga_id).with_for_update())
        async with asyncio.timeout(20):
            snapshot = await orchestrator.get_snapshot(saga_id)
            await admin_of(orchestrator).get_saga(saga_id)
            await admin_of(orchestrator).list_sagas()
    assert snapshot.status is SagaStatus.SUSPENDED


# --- m: the caller's transaction -------------------------------------------------------------------------------------


async def test_m_a_start_joins_the_callers_transaction(scene: Scene, ledger: list[str]) -> None:
    """With `session=` a saga exists if, and when, the caller commits; then it starts by itself."""
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger)))
    async with scene.sessions() as session:
        dropped = await orchestrator.start(**ORDER, session=session)
        await session.rollback()
    assert (await admin_of(orchestrator).list_sagas()).items == []
    async with scene.sessions.begin() as session:
        kept = await orchestrator.start(**ORDER, session=session)
        assert ledger == []
    result = await orchestrator.result(kept, timeout=20 * SECOND)
    assert (result.status, ledger) == (SagaStatus.COMPLETED, ["reserve"])
    assert kept != dropped


# --- n: shutdown in the middle of a step -----------------------------------------------------------------------------


async def test_n_a_shutdown_in_the_middle_of_a_step_hands_the_saga_over_at_once(
    scene: Scene, ledger: list[str]
) -> None:
    """No lease has to run out, and no attempt is burnt: the next owner makes the same attempt, and knows the doubt."""
    began = asyncio.Event()

    async def hang(ctx: Any) -> None:
        began.set()
        await forever(ctx)

    leaving = scene.orchestrator(saga(Undoable("reserve", ledger, does=hang)))
    starting = asyncio.create_task(leaving.start(**ORDER))
    await began.wait()
    await leaving.aclose()
    saga_id = await starting
    step = Undoable("reserve", ledger)
    heir = scene.orchestrator(saga(step))
    assert await heir.run_due() == 1
    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert [(ctx.attempt, ctx.in_doubt) for ctx in step.seen] == [(1, True)]


async def test_n_a_caller_that_is_cancelled_does_the_saga_no_harm(timeless: Scene, ledger: list[str]) -> None:
    """The request that started the saga may be cut off in the middle of a step; the step goes on."""
    began, finish = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Any) -> None:
        began.set()
        await finish.wait()

    orchestrator = timeless.orchestrator(saga(Undoable("reserve", ledger, does=slow)))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await began.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    (found,) = (await admin_of(orchestrator).list_sagas()).items
    finish.set()
    result = await orchestrator.result(found.id, timeout=20 * SECOND)
    assert (result.status, ledger) == (SagaStatus.COMPLETED, ["reserve"])


async def test_n_a_claim_whose_caller_is_cancelled_locks_nothing(timeless: Scene, ledger: list[str]) -> None:
    """A worker that is stopped between claiming and driving hands back what it has claimed."""
    waits = {"retry_policy": AGAIN}
    saga_id = await timeless.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), **waits)).start(
        **ORDER
    )
    timeless.pass_time()
    gate = Gate(timeless.store(), "claim")
    leaving = timeless.orchestrator(saga(OneWay("reserve", ledger, does=forever), **waits), store=gate)
    running = asyncio.create_task(SagaWorker(leaving).run(handle_signals=False))
    await gate.reached.wait()
    running.cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    async with asyncio.timeout(20):
        await asyncio.wait([running])
        await leaving.aclose()
    heir = timeless.orchestrator(saga(OneWay("reserve", ledger), **waits))
    assert await heir.run_due() == 1
    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


async def test_n_a_saga_that_is_born_while_the_engine_closes_is_handed_back(timeless: Scene, ledger: list[str]) -> None:
    """Closing waits for no step: also a saga whose birth was under way is left to others at once."""
    definition = saga(OneWay("reserve", ledger, does=forever))
    gate = Gate(timeless.store())
    closing = timeless.orchestrator(definition, store=gate)
    starting = asyncio.create_task(closing.start(**ORDER))
    await gate.reached.wait()
    ending = asyncio.create_task(closing.aclose())
    await asyncio.sleep(0)
    gate.opened.set()
    async with asyncio.timeout(20):
        await ending
        saga_id = await starting
    heir = timeless.orchestrator(saga(OneWay("reserve", ledger)))
    assert await heir.run_due() == 1
    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


# --- o: skipping -----------------------------------------------------------------------------------------------------


async def test_o_a_skipped_step_does_not_wedge_a_later_rollback(scene: Scene, ledger: list[str]) -> None:
    """A step done by hand is undone with the input that it would have had and the output that the operator gave."""
    undone: list[Any] = []

    class Charge(OneWay):
        async def compensate(self, inp: Asked, out: Receipt) -> None:
            undone.append((inp.order_id, out.number))

    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    charge = Charge("charge", ledger, does=fails(ConnectionError("down")))
    builder.add_step(step=charge, input_map=asked, step_id="charge", retry_policy=AGAIN)
    ship = OneWay("ship", ledger, does=fails(ValueError("no truck")))
    builder.add_step(step=ship, input_map=asked, step_id="ship")
    orchestrator = scene.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    await admin_of(orchestrator).skip_step(saga_id, mock_output={"number": "by-hand"}, actor="ada", reason="paid cash")
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert undone == [("o-1", "by-hand")]
    assert ledger == ["reserve", "undo reserve"]


# --- p: a foreign StepRef --------------------------------------------------------------------------------------------


def test_p_a_step_ref_of_another_builder_is_refused_when_the_step_is_added(ledger: list[str]) -> None:
    """The mistake is found where it is made, and not by the first saga that is started."""
    foreign = SagaBuilder().add_step(step=Undoable("reserve", ledger), input_map=asked)
    with pytest.raises(SagaDefinitionError, match="'step_0' of another SagaBuilder"):
        SagaBuilder().add_step(
            step=Undoable("charge", ledger), depends_on=foreign, input_map=lambda out: Asked(order_id=out.number)
        )


# --- q: compensations, and fairness ----------------------------------------------------------------------------------


async def test_q_a_compensation_is_retried_and_has_a_timeout(timeless: Scene, ledger: list[str]) -> None:
    """An undo that hangs or fails is tried again under the same key, after a pause that survives a restart."""
    calls = []

    async def stubborn(ctx: Any) -> None:
        calls.append((ctx.attempt, ctx.idempotency_key))
        if len(calls) == 1:
            await forever(ctx)
        if len(calls) == 2:
            raise ConnectionError("down")

    builder = SagaBuilder()
    builder.add_step(
        step=Undoable("reserve", ledger, undoes=stubborn),
        input_map=asked,
        step_id="reserve",
        compensation_retry=FixedRetry(max_attempts=3, delay=SECOND),
        compensation_timeout=timedelta(milliseconds=1),
    )
    builder.add_step(step=OneWay("charge", ledger, does=fails(ValueError("declined"))), input_map=asked)
    definition = builder.build()
    saga_id = await timeless.orchestrator(definition).start(**ORDER)
    for _ in range(2):
        timeless.pass_time(SECOND)
        assert await timeless.orchestrator(definition).run_due() == 1
    assert (await timeless.orchestrator(definition).get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    key = f"{saga_id}/reserve/compensate"
    assert calls == [(1, key), (2, key), (3, key)]


async def test_q_what_waits_longest_goes_first_whichever_way_it_goes(scene: Scene, ledger: list[str]) -> None:
    """Under a `limit`, sagas on their way forward do not starve one that is being undone."""
    down = fails(ConnectionError("down"))
    back = saga(
        Undoable("reserve", ledger, undoes=down),
        Undoable("charge", ledger, does=fails(ValueError("declined"))),
        compensation_retry=AGAIN,
    )
    orchestrator = scene.orchestrator(back)
    orchestrator.register("forward", saga(OneWay("reserve", ledger, does=down), retry_policy=AGAIN))
    undone = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id="back")
    scene.pass_time(timedelta(milliseconds=1))
    for number in range(3):
        await orchestrator.start(saga_name="forward", initial_data={}, aggregation_id=f"forward {number}")
    scene.pass_time()
    assert await orchestrator.run_due(limit=1) == 1
    looked_at = [s for s in (await admin_of(orchestrator).list_sagas()).items if s.retry_counter == 2]
    assert [s.id for s in looked_at] == [undone]


async def test_q_run_due_drives_its_sagas_side_by_side(timeless: Scene, ledger: list[str]) -> None:
    """Three sagas that wait for each other in their steps all end, which one after another they could not."""
    meeting = asyncio.Barrier(3)

    async def meet(ctx: Any) -> None:
        await meeting.wait()

    waits = {"retry_policy": FixedRetry(max_attempts=2, delay=SECOND)}
    first = timeless.orchestrator(saga(OneWay("reserve", ledger, does=fails(ConnectionError("down"))), **waits))
    for number in range(3):
        await first.start(saga_name=NAME, initial_data={}, aggregation_id=f"o-{number}")
    timeless.pass_time()
    async with asyncio.timeout(20):
        assert await timeless.orchestrator(saga(OneWay("reserve", ledger, does=meet), **waits)).run_due() == 3


# --- r: whose clock --------------------------------------------------------------------------------------------------

DAY = timedelta(days=1)


async def test_r_time_is_told_by_the_database_clock(database_url: str, ledger: list[str]) -> None:
    """Leases and timers follow a database whose clock is a day ahead of this host's, and two days, when it says so."""
    async with scene_on(database_url, manual_clock=False) as plain:
        ahead = timedelta(days=1)

        if plain.engine.dialect.name == "sqlite":
            engine = create_async_engine(database_url)

            @event.listens_for(engine.sync_engine, "connect")
            def skew(connection: Any, _: Any) -> None:
                def strftime(form: str, _: str) -> str:
                    return (datetime.now(UTC) + ahead).strftime("%Y-%m-%d %H:%M:%S.%f")

                connection.create_function("strftime", 2, strftime)
        else:
            await plain.sql("CREATE TABLE skew (by interval)")
            await plain.sql("INSERT INTO skew VALUES ('1 day')")
            for clock, kind in (("clock_timestamp", "VOLATILE"), ("statement_timestamp", "STABLE")):
                await plain.sql(
                    f"CREATE FUNCTION public.{clock}() RETURNS timestamptz LANGUAGE sql {kind} AS "
                    f"'SELECT pg_catalog.{clock}() + by FROM public.skew'"
                )
            settings = {"search_path": "public, pg_catalog"}
            engine = create_async_engine(database_url, connect_args={"server_settings": settings})
        skewed = Scene(engine, None)
        definition = saga(OneWay("reserve", ledger, does=fails(ValueError("no"), ValueError("no"))),
                          retry_policy=FixedRetry(5, timedelta(hours=1)))  # fmt: skip
        saga_id = await skewed.orchestrator(definition).start(**ORDER)
        snapshot = await skewed.orchestrator(definition).get_snapshot(saga_id)
        assert snapshot.deadline_at is not None
        assert datetime.now(UTC) + DAY < snapshot.deadline_at < datetime.now(UTC) + DAY + timedelta(hours=2)
        assert await skewed.orchestrator(definition).run_due() == 0
        ahead = timedelta(days=2)
        if engine.dialect.name == "postgresql":
            await plain.sql("UPDATE skew SET by = '2 days'")
        assert await skewed.orchestrator(definition).run_due() == 1
        await skewed.aclose()
        await engine.dispose()
