"""Operators' orders on real databases: carried out durably, recorded with who and why, or refused with a reason."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from saga_orchestrator import (
    FixedRetry,
    HistoryEntry,
    OutcomeUnknown,
    PermanentError,
    SagaAdmin,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    StepKind,
)
from saga_orchestrator.kernel.codec import encode
from saga_orchestrator.kernel.state import State
from saga_orchestrator.storage.rows import Head
from tests.support.sagas import NAME, Site, TripSaga, World, soon, trip, until

ORDER = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}
WHO = {"actor": "ann", "reason": "ticket 12"}
PATIENT = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=timedelta(hours=1))}}


def admin_of(orchestrator: SagaOrchestrator[TripSaga]) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


async def order_of(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> HistoryEntry:
    """Return the one history entry of an order."""
    saga = await admin_of(orchestrator).get_saga(saga_id)
    [entry] = [entry for entry in saga.step_history if entry.actor is not None]
    assert (entry.actor, entry.reason) == ("ann", "ticket 12")
    return entry


async def test_p23_retry_step_tries_again_now(database: Site, world: World) -> None:
    """A saga that waits for its next attempt makes it at once, by order, and goes on to its end."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.SUSPENDED

    await soon(admin_of(orchestrator).retry_step(saga_id, **WHO))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car"]
    entry = await order_of(orchestrator, saga_id)
    assert (entry.phase, entry.step_id) == ("ORDER", "retry")


async def test_p23_a_retry_by_another_process_is_driven_there(database: Site, world: World) -> None:
    """Who gives the order drives the saga; the process that had it before need not be alive."""
    first, second = database.joins(trip(world, **PATIENT)), database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await first.start(**ORDER)
    await first.aclose()

    await soon(admin_of(second).retry_step(saga_id, "hotel", **WHO))

    assert (await second.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert (await order_of(second, saga_id)).step_id == "retry:hotel"


async def test_p24_skip_step_with_an_output_counts_as_done_by_hand(database: Site, world: World) -> None:
    """The saga goes on; when it fails later, the step that was done by hand is undone like any other."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    world.plan("car", PermanentError("no car"))
    saga_id = await orchestrator.start(**ORDER)

    await soon(admin_of(orchestrator).skip_step(saga_id, {"ref": "by hand"}, **WHO))

    saga = await admin_of(orchestrator).get_saga(saga_id)
    assert saga.status is SagaStatus.COMPENSATED
    assert world.calls == ["flight", "hotel", "car", "undo hotel", "undo flight"]
    assert saga.context["step_outputs"]["hotel"] == {"ref": "by hand"}
    entries = [entry for entry in saga.step_history if entry.skipped]
    assert [(entry.step_id, entry.status, entry.actor, entry.reason) for entry in entries] == [
        ("hotel", "SKIPPED", "ann", "ticket 12")
    ]


async def test_p24_skip_step_without_an_output_counts_as_not_done(database: Site, world: World) -> None:
    """The saga goes on, and a later rollback passes over the step."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    world.plan("car", PermanentError("no car"))
    saga_id = await orchestrator.start(**ORDER)

    await soon(admin_of(orchestrator).skip_step(saga_id, **WHO))

    assert world.calls == ["flight", "hotel", "car", "undo flight"]
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_p24_an_output_that_does_not_fit_is_refused(on_sqlite: Site, world: World) -> None:
    """A mock output is checked against the step's model before anything is written."""
    orchestrator = on_sqlite.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)

    with pytest.raises(SagaStateError, match="mock_output does not fit"):
        await admin_of(orchestrator).skip_step(saga_id, {"ref": 12}, **WHO)

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.SUSPENDED


async def test_p24_a_step_that_waits_only_since_the_look_is_not_skipped(
    on_sqlite: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order without a name is for the step that waits when it is given; its output was checked against no other."""
    orchestrator = on_sqlite.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)
    now = await orchestrator.engine.store.head(saga_id)
    assert now is not None

    async def looked_at_before(_: UUID) -> Head:
        return replace(now, state=encode(State()))

    monkeypatch.setattr(orchestrator.engine.store, "head", looked_at_before)
    with pytest.raises(SagaStateError, match="found: hotel"):
        await admin_of(orchestrator).skip_step(saga_id, {"ref": "by hand"}, **WHO)

    monkeypatch.undo()
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.SUSPENDED


async def test_p25_compensate_step_undoes_a_saga_that_waits(database: Site, world: World) -> None:
    """By order the saga turns round, and what has acted is undone."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)

    await soon(admin_of(orchestrator).compensate_step(saga_id, **WHO))

    assert world.calls == ["flight", "hotel", "undo flight"]
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert (await order_of(orchestrator, saga_id)).step_id == "compensate"


async def test_p25_compensate_step_resumes_an_undo_that_failed(database: Site, world: World) -> None:
    """A rollback that is STUCK is taken up where it failed, and can end COMPENSATED after all."""
    orchestrator = database.joins(trip(world))
    world.plan("car", PermanentError("no car"))
    world.plan("undo hotel", ValueError("no answer"))
    saga_id = await orchestrator.start(**ORDER)
    stuck = await orchestrator.get_snapshot(saga_id)
    assert (stuck.status, stuck.residue) == (SagaStatus.STUCK, ("hotel",))

    await soon(admin_of(orchestrator).compensate_step(saga_id, **WHO))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert world.calls.count("undo hotel") == 2
    assert world.calls.count("undo flight") == 1


async def test_waive_step_takes_what_stands_on_a_person(database: Site, world: World) -> None:
    """A waiver ends a STUCK saga; it needs a name, and only what stands can be waived."""
    orchestrator = database.joins(trip(world))
    world.plan("car", PermanentError("no car"))
    world.plan("undo hotel", ValueError("no answer"))
    saga_id = await orchestrator.start(**ORDER)
    admin = admin_of(orchestrator)
    with pytest.raises(SagaStateError, match="actor="):
        await admin.waive_step(saga_id, "hotel")
    with pytest.raises(SagaStateError, match="flight is not part of its residue"):
        await admin.waive_step(saga_id, "flight", **WHO)

    await soon(admin.waive_step(saga_id, "hotel", **WHO))

    saga = await orchestrator.get_snapshot(saga_id)
    assert (saga.status, saga.residue, saga.awaiting) == (SagaStatus.COMPENSATED, (), None)
    assert (await order_of(orchestrator, saga_id)).step_id == "waive:hotel"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["by the owner's process", "by another process"])
async def test_n18_cancel_lets_the_step_in_flight_finish_and_undoes_it(
    database: Site, world: World, elsewhere: bool
) -> None:
    """A cancelled saga's step comes to a known end, and then everything is undone; no result is lost on the way.

    From another process the owner learns of it when his own commit meets the new revision.
    """
    owner = database.joins(trip(world))
    operator = admin_of(database.joins(trip(world)) if elsewhere else owner)
    gate = world.gate("hotel")
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id

    await soon(operator.cancel(saga_id, **WHO))
    assert not gate.cut.is_set()
    gate.open()
    await soon(running)

    assert world.calls == ["flight", "hotel", "undo hotel", "undo flight"]
    assert (await owner.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert (await order_of(owner, saga_id)).step_id == "cancel"
    history = (await admin_of(owner).get_saga(saga_id)).step_history
    assert [(entry.phase, entry.step_id, entry.status) for entry in history] == [
        ("EXECUTE", "flight", "SUCCESS"),
        ("ORDER", "cancel", "SUCCESS"),
        ("EXECUTE", "hotel", "SUCCESS"),
        ("COMPENSATE", "hotel", "SUCCESS"),
        ("COMPENSATE", "flight", "SUCCESS"),
    ]


async def test_cancelling_twice_is_cancelling_once(database: Site, world: World) -> None:
    """The second order finds it done, changes nothing and is no error; two at once are no different."""
    owner = database.joins(trip(world))
    gate = world.gate("hotel")
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id
    operators = [admin_of(database.joins(trip(world))) for _ in range(2)]

    await soon(asyncio.gather(*(operator.cancel(saga_id, **WHO) for operator in operators * 2)))
    gate.open()
    await soon(running)

    assert (await order_of(owner, saga_id)).step_id == "cancel"
    assert world.calls == ["flight", "hotel", "undo hotel", "undo flight"]


async def test_cancel_of_a_saga_whose_owner_has_vanished_is_carried_out_by_the_next(
    database: Site, world: World
) -> None:
    """The order is durable at once; whoever takes the saga over finds it, and undoes what may have acted."""
    meddling = database.meddling_store()
    dead, operator = database.joins(trip(world), store=meddling), database.joins(trip(world))

    async def renews_nothing(renew: Any, *args: Any) -> dict[Any, int]:
        return {}

    meddling.around["renew"] = renews_nothing
    gate = world.gate("hotel")
    running = asyncio.create_task(dead.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id
    await database.make_due(saga_id)

    await soon(admin_of(operator).cancel(saga_id, **WHO))
    assert "undo flight" not in world.calls
    assert await soon(operator.run_due()) == 1

    assert (await operator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert world.calls[-2:] == ["undo hotel", "undo flight"]
    gate.open()
    await soon(running)
    assert (await operator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("elsewhere", [False, True], ids=["by the owner's process", "by another process"])
async def test_p26_abort_ignores_the_result_of_the_step_in_flight(
    database: Site, world: World, elsewhere: bool
) -> None:
    """An aborted saga is FAILED at once, with its effects as residue; what the step answers later changes nothing."""
    owner = database.joins(trip(world))
    operator = admin_of(database.joins(trip(world)) if elsewhere else owner)
    gate = world.gate("hotel")
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id

    await soon(operator.abort(saga_id, **WHO))
    aborted = await operator.get_saga(saga_id)
    gate.open()
    await soon(running)

    assert (aborted.status, aborted.residue) == (SagaStatus.FAILED, ("flight", "hotel"))
    assert (aborted.step_execution_token, aborted.deadline_at) == (None, None)
    assert await operator.get_saga(saga_id) == aborted
    assert world.calls == ["flight", "hotel"]


async def test_p26_abort_keeps_the_error_that_was_there(database: Site, world: World) -> None:
    """The business error of a saga that waited for its retry is what stands in the row after the abort."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)

    await admin_of(orchestrator).abort(saga_id, **WHO)

    saga = await orchestrator.get_snapshot(saga_id)
    assert (saga.status, saga.last_error, saga.residue) == (SagaStatus.FAILED, "ValueError('full')", ("flight",))


async def test_an_order_and_the_owners_commit_at_once_both_count(database: Site, world: World) -> None:
    """A cancel that is written while the owner's commit is on its way: the commit is decided again, nothing is lost."""
    meddling = database.meddling_store()
    owner, operator = database.joins(trip(world), store=meddling), database.joins(trip(world))
    step, commit = world.gate("hotel"), world.gate("commit")

    async def hold(write: Any, batch: Any) -> Any:
        if step.opened.is_set() and not commit.opened.is_set():
            await commit()
        return await write(batch)

    meddling.around["write"] = hold
    running = asyncio.create_task(owner.start(**ORDER))
    await step.wait_reached()
    step.open()
    await commit.wait_reached()

    await soon(admin_of(operator).cancel(world.contexts[-1].saga_id, **WHO))
    commit.open()
    saga_id = await soon(running)

    assert world.calls == ["flight", "hotel", "undo hotel", "undo flight"]
    assert (await owner.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_a_retry_and_the_timer_at_once_make_one_attempt(database: Site, world: World) -> None:
    """An operator's retry and a worker that finds the saga due: exactly one of them makes the next attempt."""
    orchestrator, worker = database.joins(trip(world, **PATIENT)), database.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)
    await database.make_due(saga_id)

    retried = admin_of(orchestrator).retry_step(saga_id, **WHO)
    answers = await soon(asyncio.gather(retried, worker.run_due(), worker.run_due(), return_exceptions=True))

    assert all(not isinstance(answer, Exception) or isinstance(answer, SagaStateError) for answer in answers)
    await until(lambda: len(world.calls) >= 4)
    result = await soon(orchestrator.result(saga_id))
    assert result.status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car"]


REFUSALS = {
    "retry_step": "SUSPENDED, STUCK or FAILED",
    "skip_step": "SUSPENDED, or STUCK",
    "compensate_step": "opens no undo_window",
    "cancel": "it is over",
    "abort": "it is over",
}


@pytest.mark.parametrize("order", REFUSALS)
async def test_g_a_completed_saga_refuses_every_order(database: Site, world: World, order: str) -> None:
    """The refusal names the saga, its status and what is allowed, and neither row nor history has changed."""
    orchestrator = database.joins(trip(world))
    admin = admin_of(orchestrator)
    saga_id = await orchestrator.start(**ORDER)
    before = await admin.get_saga(saga_id)

    with pytest.raises(SagaStateError) as refused:
        await getattr(admin, order)(saga_id, **WHO)

    for said in (str(saga_id), NAME, "COMPLETED", REFUSALS[order]):
        assert said in str(refused.value)
    assert await admin.get_saga(saga_id) == before


async def test_past_its_pivot_a_saga_cannot_be_turned_round(database: Site, world: World) -> None:
    """Once the pivot is in flight, cancel and compensate_step are refused; abort is not."""
    pivot = trip(world, hotel={"kind": StepKind.PIVOT}, car={"kind": StepKind.RETRIABLE})
    owner = database.joins(pivot)
    admin = admin_of(database.joins(pivot))
    gate = world.gate("hotel")
    running = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    saga_id = world.contexts[-1].saga_id

    with pytest.raises(SagaStateError, match="pivot"):
        await admin.cancel(saga_id, **WHO)
    await admin.abort(saga_id, **WHO)

    gate.open()
    await soon(running)
    assert (await owner.get_snapshot(saga_id)).status is SagaStatus.FAILED
    assert not any(call.startswith("undo") for call in world.calls)


async def test_orders_to_a_saga_that_nobody_knows_are_refused(database: Site, world: World) -> None:
    """An unknown id is not found; a saga whose definition this process lacks is refused, and left as it is."""
    orchestrator, ignorant = database.joins(trip(world, **PATIENT)), admin_of(database.joins(None))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)

    with pytest.raises(SagaNotFoundError):
        await admin_of(orchestrator).cancel(uuid4(), **WHO)
    for order in REFUSALS.keys() - {"abort"}:  # to abort a saga takes no definition
        with pytest.raises(SagaStateError, match=r"does not know|not registered"):
            await getattr(ignorant, order)(saga_id, **WHO)

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.SUSPENDED


async def test_f_a_step_that_cannot_tell_is_undone_by_order_too(database: Site, world: World) -> None:
    """A step that waits for its retry, and of which nobody knows whether it acted, is undone by compensate_step."""
    orchestrator = database.joins(trip(world, **PATIENT))
    world.plan("hotel", OutcomeUnknown("no answer"))
    saga_id = await orchestrator.start(**ORDER)

    await soon(admin_of(orchestrator).compensate_step(saga_id, **WHO))

    assert world.calls == ["flight", "hotel", "undo hotel", "undo flight"]
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_p24_a_step_that_does_not_exist_cannot_be_skipped(on_sqlite: Site, world: World) -> None:
    """A typing error in a step's name is refused, with the names that there are."""
    orchestrator = on_sqlite.joins(trip(world, **PATIENT))
    world.plan("hotel", ValueError("full"))
    saga_id = await orchestrator.start(**ORDER)

    with pytest.raises(SagaStateError, match="hotel"):
        await admin_of(orchestrator).skip_step(saga_id, {"ref": "x"}, "hotle", **WHO)
