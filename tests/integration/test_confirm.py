"""Confirm or undo: when all steps have succeeded a saga is confirmed, by itself or when somebody says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from saga_orchestrator import (
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaSnapshot,
    SagaStateError,
    SagaStatus,
    StepContext,
    step,
)
from saga_orchestrator.testing import ManualClock
from tests.support.sagas import NAME, Deed, Input, Output, Site, TripSaga, World, soon, trip

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}
WHO = {"actor": "ann", "reason": "ticket 12"}
HOUR = timedelta(hours=1)
AT_ONCE = FixedRetry(max_attempts=2, delay=timedelta(0))
ASKED = (SagaStatus.SUSPENDED, "event:saga.commit,saga.reject")


class Hold(Deed):
    """A step of the world that is confirmed: it notes with what."""

    async def confirm(self, inp: Input, out: Output, ctx: StepContext) -> None:
        await self.world.call(f"confirm {self.name} {inp.number} {out.ref}", ctx)


class Booking(Hold):
    """Counts up when it is confirmed, in the transaction that records this."""

    transactional = True

    async def confirm(self, inp: Input, out: Output, ctx: StepContext) -> None:
        await ctx.session.execute(text("UPDATE counter SET n = n + 1"))
        await super().confirm(inp, out, ctx)


HELD = ("confirm hotel 7 hotel-7", "confirm car 7 car-7")


def number(ctx: Any) -> Input:
    return Input(number=ctx.initial_data["number"])


def journey(world: World, kind: type[Deed] = Hold, said: Any = None, **settings: Any) -> SagaDefinition:
    """Return a saga of a hotel and a car, which are confirmed, and a letter, which is not."""
    builder = SagaBuilder(**settings)
    for name in ("hotel", "car"):
        builder.add_step(step=kind(world, name), input_map=number, step_id=name, **said or {})
    builder.add_step(step=Deed(world, "letter"), input_map=number, step_id="letter")
    return builder.build()


def admin_of(orchestrator: SagaOrchestrator[TripSaga]) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


async def asked(orchestrator: SagaOrchestrator[TripSaga]) -> SagaSnapshot:
    """Return the snapshot of a saga that waits for the decision."""
    snapshot = await orchestrator.get_snapshot(await soon(orchestrator.start(**ORDER)))
    assert (snapshot.status, snapshot.awaiting) == ASKED
    return snapshot


async def test_m14_all_is_confirmed_when_all_has_succeeded(database: Site, world: World) -> None:
    """Each with its recorded input and output, under a key of its own; the result is that of the author's steps."""
    orchestrator = database.joins(journey(world))

    result = await soon(orchestrator.run(**ORDER))

    assert world.calls[:3] == ["hotel", "car", "letter"]
    assert sorted(world.calls[3:]) == sorted(HELD)
    [ctx] = [ctx for ctx in world.contexts if ctx.phase == "confirm" and ctx.step_id == "car"]
    assert ctx.idempotency_key == f"{result.saga_id}/car/confirm"
    assert result.outputs == {name: {"ref": f"{name}-7"} for name in ("hotel", "car", "letter")}
    saga = await admin_of(orchestrator).get_saga(result.saga_id)
    assert saga.context["step_outputs"] == result.outputs
    assert saga.steps["saga.commit"] == saga.steps["car.confirm"] == "Succeeded"


async def test_m14_nothing_is_confirmed_of_a_saga_that_fails(database: Site, world: World) -> None:
    """It is undone as it ever was."""
    world.plan("letter", PermanentError("no stamps"))
    orchestrator = database.joins(journey(world))

    result = await soon(orchestrator.run(**ORDER, raise_on_error=False))

    assert result.status is SagaStatus.COMPENSATED
    assert world.calls == ["hotel", "car", "letter", "undo car", "undo hotel"]


async def test_m14_a_manual_saga_is_confirmed_when_it_is_committed(database: Site, world: World) -> None:
    """Until then nothing is; the decision, with who and why, stands in the history; to repeat it changes nothing."""
    orchestrator, another = (database.joins(journey(world, commit="manual")) for _ in range(2))
    saga = await asked(orchestrator)
    assert world.calls == ["hotel", "car", "letter"]

    await soon(another.commit(saga.id, **WHO))
    await soon(another.commit(saga.id))
    result = await soon(orchestrator.result(saga.id))
    await soon(orchestrator.commit(saga.id))

    assert result.status is SagaStatus.COMPLETED
    assert sorted(world.calls[3:]) == sorted(HELD)
    history = (await admin_of(orchestrator).get_saga(saga.id)).step_history
    assert [row.output for row in history if row.step_id == "saga.decision"][-1] == WHO
    with pytest.raises(SagaStateError, match="has been committed already; it is COMPLETED"):
        await orchestrator.reject(saga.id)


async def test_m14_a_manual_saga_is_undone_when_it_is_rejected(database: Site, world: World) -> None:
    """All of it; to repeat it changes nothing, and it cannot be committed any more."""
    orchestrator = database.joins(journey(world, commit="manual"))
    saga = await asked(orchestrator)

    await soon(orchestrator.reject(saga.id, **WHO))
    with pytest.raises(SagaStateError, match="has been rejected already"):
        await soon(orchestrator.commit(saga.id))
    result = await soon(orchestrator.result(saga.id))
    await soon(orchestrator.reject(saga.id))

    assert (result.status, result.residue) == (SagaStatus.COMPENSATED, ())
    assert world.calls[3:] == ["undo letter", "undo car", "undo hotel"]
    assert "rejected by ann: ticket 12" in (result.error or "")


async def test_m14_a_saga_that_nobody_has_committed_in_time_is_undone(database: Site, world: World) -> None:
    """As if it had been rejected; a decision comes too late then, also before anybody has looked at the clock."""
    clock = ManualClock()
    orchestrator = database.joins(journey(world, commit="manual", commit_timeout=HOUR), clock=clock)
    saga = await asked(orchestrator)
    clock.advance(HOUR)

    with pytest.raises(SagaStateError, match="the time to decide is up"):
        await soon(orchestrator.commit(saga.id))
    await soon(orchestrator.run_due())

    result = await soon(orchestrator.result(saga.id))
    assert result.status is SagaStatus.COMPENSATED
    assert result.error == "no saga.commit or saga.reject in time"
    assert world.calls[3:] == ["undo letter", "undo car", "undo hotel"]
    with pytest.raises(SagaStateError, match="is COMPENSATED: there is nothing left to decide"):
        await orchestrator.commit(saga.id)


@pytest.mark.parametrize("order", ["commit", "reject"])
async def test_m14_a_decision_that_comes_early_is_kept(database: Site, world: World, order: str) -> None:
    """It takes effect when all steps have succeeded; of two, it is the first that counts."""
    gate = world.gate("car")
    orchestrator = database.joins(journey(world, commit="manual"))
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    saga_id = (await admin_of(orchestrator).list_sagas()).items[0].id

    for each in (order, "reject", "commit"):
        await soon(getattr(orchestrator, each)(saga_id))
    gate.open()

    assert await soon(running) == saga_id
    ended = SagaStatus.COMPLETED if order == "commit" else SagaStatus.COMPENSATED
    assert (await soon(orchestrator.result(saga_id))).status is ended


async def test_m14_a_decision_that_nobody_waits_for_is_refused(database: Site, world: World) -> None:
    """Of a saga that commits by itself, of one that is being undone, of an unknown one, and by who does not know it."""
    orchestrator, stranger = database.joins(trip(world)), database.joins(None)
    saga_id = await soon(orchestrator.start(**ORDER))

    with pytest.raises(SagaStateError, match="is COMPLETED, and commits by itself"):
        await orchestrator.commit(saga_id)
    with pytest.raises(SagaStateError, match="not registered in this process"):
        await stranger.reject(saga_id)
    with pytest.raises(SagaNotFoundError):
        await orchestrator.commit(uuid4())


async def test_m14_a_saga_that_is_being_undone_is_not_committed(database: Site, world: World) -> None:
    """Not even while its undo is in flight; and a name that no column holds is refused before anything else."""
    world.plan("letter", PermanentError("no stamps"))
    gate = world.gate("undo car")
    orchestrator = database.joins(journey(world, commit="manual"))
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    saga_id = (await admin_of(orchestrator).list_sagas()).items[0].id

    with pytest.raises(SagaStateError, match="is COMPENSATING: there is nothing left to decide"):
        await orchestrator.commit(saga_id)
    with pytest.raises(SagaStateError, match="actor"):
        await orchestrator.commit(saga_id, actor="")
    gate.open()
    await soon(running)


async def test_m14_a_decision_that_an_operator_passed_over_counts_as_commit(database: Site, world: World) -> None:
    """`skip_step` goes on without the step, and this one only asks."""
    orchestrator = database.joins(journey(world, commit="manual"))
    saga = await asked(orchestrator)

    await soon(admin_of(orchestrator).skip_step(saga.id, **WHO))

    assert (await soon(orchestrator.result(saga.id))).status is SagaStatus.COMPLETED
    with pytest.raises(SagaStateError, match="has been committed already"):
        await orchestrator.reject(saga.id)


async def test_m14_a_saga_that_waits_to_be_committed_can_be_cancelled_and_later_not(
    database: Site, world: World
) -> None:
    """The commit is its point of no return."""
    orchestrator = database.joins(journey(world, commit="manual"))
    first = await asked(orchestrator)
    await soon(admin_of(orchestrator).cancel(first.id))
    assert (await orchestrator.get_snapshot(first.id)).status is SagaStatus.COMPENSATED

    gate = world.gate(HELD[0])
    second = await asked(orchestrator)
    await soon(orchestrator.commit(second.id))
    await gate.wait_reached()
    with pytest.raises(SagaStateError, match="its pivot has begun, so it can only go forward"):
        await admin_of(orchestrator).cancel(second.id)
    gate.open()
    assert (await soon(orchestrator.result(second.id))).status is SagaStatus.COMPLETED


@pytest.mark.parametrize(
    ("decide", "end"), [("commit", SagaStatus.COMPLETED), ("reject", SagaStatus.COMPENSATED)], ids=["commit", "reject"]
)
async def test_m14_a_rewind_takes_the_decision_back(
    on_sqlite: Site, world: World, decide: str, end: SagaStatus
) -> None:
    """What was decided of the saga as it was says nothing of what is done instead: that is decided afresh."""
    orchestrator = on_sqlite.joins(journey(world, commit="manual"))
    saga = await asked(orchestrator)
    await soon(admin_of(orchestrator).pause(saga.id, "saga.commit"))
    await soon(orchestrator.commit(saga.id))
    await soon(orchestrator.resume(saga.id))
    assert (await orchestrator.get_snapshot(saga.id)).awaiting == "pause"

    await soon(admin_of(orchestrator).rewind(saga.id, "car"))
    await soon(admin_of(orchestrator).resume(saga.id))
    snapshot = await orchestrator.get_snapshot(saga.id)
    assert (snapshot.status, snapshot.awaiting) == ASKED
    await soon(getattr(orchestrator, decide)(saga.id))

    assert (await soon(orchestrator.result(saga.id))).status is end


async def test_m14_a_decision_that_comes_during_a_rewind_is_for_what_is_done_instead(
    on_sqlite: Site, world: World
) -> None:
    """It is kept until the saga has gone forward again."""
    orchestrator = on_sqlite.joins(journey(world, commit="manual"))
    saga = await asked(orchestrator)
    gate = world.gate("undo car")
    rewinding = asyncio.create_task(admin_of(orchestrator).rewind(saga.id, "car"))
    await gate.wait_reached()

    await soon(orchestrator.commit(saga.id))
    gate.open()
    await soon(rewinding)

    assert (await soon(orchestrator.result(saga.id))).status is SagaStatus.COMPLETED


async def test_m14_a_confirm_that_fails_is_tried_again_and_then_for_a_person(database: Site, world: World) -> None:
    """The saga is STUCK, never undone, and the other confirms are made; `retry_step` goes on."""
    world.plan(HELD[0], ConnectionError("away"), ConnectionError("away"))
    orchestrator = database.joins(journey(world, said={"confirm_retry": AT_ONCE}))

    saga_id = await soon(orchestrator.start(**ORDER))

    stuck = await orchestrator.get_snapshot(saga_id)
    assert (stuck.status, stuck.last_error) == (SagaStatus.STUCK, "ConnectionError('away')")
    assert sorted(world.calls[3:]) == sorted([HELD[0], *HELD])
    for order in ("compensate_step", "cancel"):
        with pytest.raises(SagaStateError, match="go forward"):
            await getattr(admin_of(orchestrator), order)(saga_id)

    await soon(admin_of(orchestrator).retry_step(saga_id, "hotel.confirm", **WHO))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert world.calls[6:] == [HELD[0]]


async def test_m14_a_cancelled_caller_does_not_stop_the_confirms(database: Site, world: World) -> None:
    """Neither one that waits for the saga nor one that has committed it."""
    orchestrator = database.joins(journey(world))
    gate = world.gate(HELD[0])
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.open()

    saga_id = (await admin_of(orchestrator).list_sagas()).items[0].id
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPLETED
    assert not gate.cut.is_set()
    assert sorted(world.calls[3:]) == sorted(HELD)


async def test_m14_a_confirm_is_made_again_after_a_crash(database: Site, world: World) -> None:
    """By whoever takes the saga over, with what was recorded and under the same key, as one in doubt."""
    first, heir = database.joins(journey(world)), database.joins(journey(world))
    gate = world.gate(HELD[0])
    running = asyncio.create_task(first.start(**ORDER))
    await gate.wait_reached()
    await first.aclose()
    saga_id: UUID = await soon(running)

    await soon(heir.run_due())

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    again = [ctx for ctx in world.contexts if ctx.phase == "confirm" and ctx.step_id == "hotel"]
    assert len(again) == 2
    assert again[0].idempotency_key == again[1].idempotency_key
    assert again[1].in_doubt


async def test_m14_only_the_branch_that_was_taken_is_confirmed(database: Site, world: World) -> None:
    """Of the others there is nothing to confirm."""
    builder = SagaBuilder()
    branches = {}
    for name in ("card", "cash"):
        branch = SagaBuilder()
        branch.add_step(step=Hold(world, name), input_map=number, step_id="pay")
        branches[name] = branch.build()
    builder.add_choice(choose=lambda ctx: "cash", branches=branches, step_id="how")
    orchestrator = database.joins(builder.build())

    await soon(orchestrator.run(**ORDER))

    assert world.calls == ["cash", "confirm cash 7 cash-7"]


async def test_m14_a_part_is_confirmed_with_the_whole(database: Site, world: World) -> None:
    """After the last step of the saga around it, and with the part's own initial data."""
    builder = SagaBuilder()
    stay = builder.add_saga(journey(world), input_map=lambda ctx: {"number": 9}, namespace="stay")
    builder.add_step(step=Deed(world, "mail"), input_map=lambda out: Input(), depends_on=stay, step_id="mail")
    orchestrator = database.joins(builder.build())

    result = await soon(orchestrator.run(**ORDER))

    assert world.calls[:4] == ["hotel", "car", "letter", "mail"]
    assert sorted(world.calls[4:]) == ["confirm car 9 car-9", "confirm hotel 9 hotel-9"]
    confirmed = [ctx for ctx in world.contexts if ctx.phase == "confirm"]
    assert {ctx.step_id for ctx in confirmed} == {"stay.hotel", "stay.car"}
    assert [ctx.initial_data for ctx in confirmed] == [{"number": 9}] * 2
    assert set(result.outputs) == {"stay", "stay.hotel", "stay.car", "stay.letter", "mail"}


@pytest.mark.parametrize("output", [None, {"ref": "by hand"}])
async def test_m14_a_step_that_was_passed_over_is_confirmed_if_it_was_done_by_hand(
    database: Site, world: World, output: dict[str, str] | None
) -> None:
    """With the output that the operator gave; one that was not done has nothing to confirm."""
    world.plan("car", ConnectionError("away"))
    orchestrator = database.joins(journey(world, said={"retry_policy": FixedRetry(2, HOUR)}))
    saga_id = await soon(orchestrator.start(**ORDER))

    await soon(admin_of(orchestrator).skip_step(saga_id, output, **WHO))

    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    by_hand = [] if output is None else ["confirm car 7 by hand"]
    assert sorted(world.calls[3:]) == sorted([HELD[0], *by_hand])


async def test_m14_a_transactional_confirm_is_committed_with_its_record(
    database: Site, world: World, counter: Callable[[], Awaitable[int]]
) -> None:
    """What an attempt wrote that failed is not there."""
    world.plan(HELD[0], ConnectionError("away"))
    orchestrator = database.joins(journey(world, Booking, {"confirm_retry": AT_ONCE}))

    assert (await soon(orchestrator.run(**ORDER))).status is SagaStatus.COMPLETED

    assert await counter() == 2


async def test_m14_a_function_is_confirmed_by_a_function(database: Site) -> None:
    """It takes what it wants of the step's arguments, its output and its context."""
    seen: list[Any] = []

    @step
    def reserve(number: int) -> str:
        return f"r-{number}"

    @reserve.confirm
    def settle(number: int, out: str, ctx: StepContext) -> None:
        seen.append((number, out, ctx.phase))

    builder = SagaBuilder()
    builder.add_step(step=reserve.bind(), input_map=lambda ctx: ctx.initial_data, step_id="reserve")
    orchestrator = database.joins(builder.build())

    await soon(orchestrator.run(**ORDER))

    assert seen == [(7, "r-7", "confirm")]
