"""What python-saga-orchestrator 0.7.3 added wrongly, as far as this library has it at all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import case, event, literal_column, select
from sqlalchemy.exc import IntegrityError

from saga_orchestrator import ActiveSagaAlreadyExistsError, FixedRetry, SagaBuilder, SagaStatus
from saga_orchestrator.storage.mixins import ACTIVE, TERMINAL
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    MortalStore,
    OneWay,
    Scene,
    Undoable,
    UndoableBlindly,
    admin_of,
    asked,
    fails,
    forever,
    mortal,
    saga,
)

AGAIN = FixedRetry(max_attempts=5, delay=SECOND)
NO = fails(ValueError("declined"))
BRIEF = timedelta(milliseconds=1)


async def test_a_timer_of_an_unregistered_saga_stops_no_recovery(scene: Scene, ledger: list[str]) -> None:
    """A saga of an unknown name whose timer has run out is passed over inside the claim, whichever is due first."""
    waits = {"retry_policy": FixedRetry(max_attempts=2, delay=SECOND)}
    first = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), **waits))
    first.register("dropped", saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), **waits))
    unknown = await first.start(saga_name="dropped", initial_data={}, aggregation_id="a", priority=9)
    known = await first.start(saga_name=NAME, initial_data={}, aggregation_id="b")
    scene.pass_time()
    other = scene.orchestrator(saga(OneWay("reserve", ledger), **waits))
    assert await other.run_due(limit=1) == 1
    assert (await other.get_snapshot(known)).status is SagaStatus.COMPLETED
    assert (await other.get_snapshot(unknown)).status is SagaStatus.SUSPENDED


async def test_a_saga_of_a_newer_version_is_left_to_those_who_know_it(scene: Scene, ledger: list[str]) -> None:
    """During a rolling deployment old processes neither fail nor delay what newer ones have started."""
    waits = {"retry_policy": FixedRetry(max_attempts=2, delay=SECOND)}
    newer = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), version=2, **waits))
    saga_id = await newer.start(**ORDER)
    scene.pass_time()
    older = scene.orchestrator(saga(OneWay("reserve", ledger), **waits))
    before = await older.get_snapshot(saga_id)
    assert await older.run_due() == 0
    await older.resume(saga_id)
    assert await older.get_snapshot(saga_id) == before
    assert await scene.orchestrator(saga(OneWay("reserve", ledger), version=2, **waits)).run_due() == 1


async def test_every_status_is_either_active_or_terminal(scene: Scene, ledger: list[str]) -> None:
    """Python and the database agree on which is which, and no other status can be written."""
    status = literal_column("status")
    async with scene.engine.connect() as connection:
        for each in SagaStatus:
            row = select(literal_column(f"'{each.value}'").label("status")).subquery()
            active, terminal = case((literal_column(ACTIVE), 1), else_=0), case((literal_column(TERMINAL), 1), else_=0)
            said = (await connection.execute(select(active, terminal, status).select_from(row))).one()
            assert tuple(said) == (int(not each.is_terminal), int(each.is_terminal), each.value)
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger)))
    saga_id = await orchestrator.start(**ORDER)
    with pytest.raises(IntegrityError, match="ck_order_saga_status"):
        await scene.edit(saga_id, status="'TIMEOUT'", awaiting="'operator'")


async def test_a_step_that_timed_out_for_good_is_undone_and_its_aggregate_stays_taken_meanwhile(
    scene: Scene, ledger: list[str]
) -> None:
    """A timeout is no status of its own: the saga goes back as after any failure, and is active until it has."""
    builder = SagaBuilder()
    stubborn = Undoable("reserve", ledger, undoes=fails(ConnectionError("down"), ConnectionError("down")))
    builder.add_step(step=stubborn, input_map=asked, compensation_retry=AGAIN)
    builder.add_step(step=UndoableBlindly("charge", ledger, does=forever), input_map=asked, timeout=BRIEF)
    orchestrator = scene.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATING
    with pytest.raises(ActiveSagaAlreadyExistsError, match=str(saga_id)):
        await orchestrator.start(**ORDER)
    for _ in range(2):
        scene.pass_time()
        await orchestrator.run_due()
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_the_history_is_not_read_on_the_way(scene: Scene, ledger: list[str]) -> None:
    """A saga's own history is never read while its first owner drives it, and once by each later owner."""
    reads = []
    definition = saga(*(Undoable(f"s{n}", ledger) for n in range(9)), OneWay("last", ledger, does=NO))
    store = scene.store()
    history = store.history

    async def counted(ids: Any) -> Any:
        reads.append(ids)
        return await history(ids)

    store.history = counted  # type: ignore[method-assign]
    statements = []

    @event.listens_for(scene.engine.sync_engine, "before_cursor_execute")
    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    orchestrator = scene.orchestrator(definition, store=store)
    await orchestrator.start(**ORDER)
    assert reads == []
    assert [s for s in statements if "order_saga_history" in s and "SELECT" in s] == []
    assert len(ledger) == 18

    doomed = MortalStore(scene.store(), survives=6, commits=True)
    process = scene.orchestrator(definition, store=doomed)
    async with mortal(lambda: process.start(**{**ORDER, "aggregation_id": "o-2"})):
        await doomed.dead.wait()
    scene.pass_time()
    assert await orchestrator.run_due() == 1
    assert len(reads) == 1


async def test_an_unrefunded_charge_is_never_called_compensated(scene: Scene, ledger: list[str]) -> None:
    """COMPENSATED means that every effect was undone; one that was not is named as residue, and a person is asked."""
    definition = saga(
        Undoable("reserve", ledger),
        Undoable("charge", ledger, undoes=fails(ConnectionError("the bank is away"))),
        OneWay("ship", ledger, does=NO),
    )
    orchestrator = scene.orchestrator(definition)
    result = await orchestrator.result(await orchestrator.start(**ORDER))
    assert (result.status, result.residue) == (SagaStatus.STUCK, ("charge",))
    assert ledger == ["reserve", "charge", "undo reserve"]
    assert "declined" in (result.error or "")


async def test_the_context_is_written_once_and_does_not_grow(timeless: Scene, ledger: list[str]) -> None:
    """Neither outputs nor events are kept in the saga's row: they are rows of the history."""
    down = fails(*(ConnectionError("down") for _ in range(3)))
    orchestrator = timeless.orchestrator(saga(OneWay("reserve", ledger, does=down), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    before = await timeless.sql("SELECT context FROM order_saga")
    for number in range(3):
        token = (await orchestrator.get_snapshot(saga_id)).step_execution_token
        assert token is not None
        assert await orchestrator.notify(saga_id=saga_id, token=token, event={"n": number})
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert await timeless.sql("SELECT context FROM order_saga") == before


async def test_what_runs_out_of_time_again_and_again_comes_to_an_end(timeless: Scene, ledger: list[str]) -> None:
    """Neither a step nor a compensation that never answers is called for ever."""
    builder = SagaBuilder()
    hangs = Undoable("reserve", ledger, undoes=forever)
    builder.add_step(
        step=hangs,
        input_map=asked,
        compensation_retry=FixedRetry(max_attempts=2, delay=SECOND),
        compensation_timeout=BRIEF,
    )
    never = UndoableBlindly("charge", ledger, does=forever)
    builder.add_step(step=never, input_map=asked, timeout=BRIEF, retry_policy=FixedRetry(max_attempts=3, delay=SECOND))
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    while (await orchestrator.get_snapshot(saga_id)).deadline_at is not None:
        timeless.pass_time()
        await orchestrator.run_due()
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.STUCK
    assert [ctx.attempt for ctx in never.seen] == [1, 2, 3, 1]
    assert [ctx.attempt for ctx in hangs.seen] == [1, 1, 2]


async def test_abort_timeout_and_skip_leave_rows_in_the_history(timeless: Scene, ledger: list[str]) -> None:
    """What a person ordered, and what ran out of time, can be read afterwards, with who ordered it and why."""
    builder = SagaBuilder()
    late = OneWay("late", ledger, does=forever)
    builder.add_step(step=late, input_map=asked, timeout=BRIEF, retry_policy=AGAIN, step_id="late", compensation=None)
    down = OneWay("down", ledger, does=fails(ConnectionError("down")))
    builder.add_step(step=down, input_map=asked, retry_policy=AGAIN, step_id="down")
    orchestrator = timeless.orchestrator(builder.build())
    admin = admin_of(orchestrator)
    saga_id = await orchestrator.start(**ORDER)
    await admin.skip_step(saga_id, {"number": "1"}, actor="ada", reason="done by hand")
    await admin.abort(saga_id, actor="bob", reason="no use")
    history = (await admin.get_saga(saga_id)).step_history
    assert [(e.phase, e.status, e.step_id, e.actor, e.reason) for e in history] == [
        ("EXECUTE", "IN_DOUBT", "late", None, None),
        ("EXECUTE", "SKIPPED", "late", "ada", "done by hand"),
        ("ORDER", "SUCCESS", "skip:late", "ada", "done by hand"),
        ("EXECUTE", "ERROR", "down", None, None),
        ("ORDER", "SUCCESS", "abort", "bob", "no use"),
    ]
