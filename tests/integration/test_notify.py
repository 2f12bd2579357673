"""`notify`: a wait is ended by its own token, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from saga_orchestrator import FixedRetry, SagaBuilder, SagaNotFoundError, SagaOrchestrator, SagaStatus
from tests.support.sagas import NAME, Deed, Input, Site, TripSaga, World, soon, trip

ORDER = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
PATIENT = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=timedelta(hours=1))}}


async def waiting(orchestrator: SagaOrchestrator[TripSaga], world: World) -> Any:
    """Return the snapshot of a saga that waits an hour for its next attempt."""
    world.plan("hotel", ValueError("full"))
    snapshot = await orchestrator.get_snapshot(await orchestrator.start(**ORDER))
    assert (snapshot.status, snapshot.awaiting) == (SagaStatus.SUSPENDED, "retry")
    return snapshot


async def test_p19_the_token_of_the_wait_makes_the_retry_now(database: Site, world: World) -> None:
    """The next attempt is made at once, by whichever process is told, and the saga is driven to its end."""
    first, second = database.joins(trip(world, **PATIENT)), database.joins(trip(world, **PATIENT))
    snapshot = await waiting(first, world)

    assert await soon(second.notify(saga_id=snapshot.id, token=snapshot.step_execution_token)) is True

    assert (await first.get_snapshot(snapshot.id)).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car"]


async def test_p19_a_token_counts_once(database: Site, world: World) -> None:
    """Repeated, a token is stale, also when the saga waits again; then the new wait's token counts."""
    orchestrator = database.joins(trip(world, **PATIENT))
    snapshot = await waiting(orchestrator, world)
    world.plan("hotel", ValueError("still full"))
    token = snapshot.step_execution_token
    assert await soon(orchestrator.notify(saga_id=snapshot.id, token=token)) is True
    again = await orchestrator.get_snapshot(snapshot.id)
    assert again.status is SagaStatus.SUSPENDED

    assert await soon(orchestrator.notify(saga_id=snapshot.id, token=token)) is False
    assert await orchestrator.get_snapshot(snapshot.id) == again

    assert await soon(orchestrator.notify(saga_id=snapshot.id, token=again.step_execution_token)) is True
    assert (await orchestrator.get_snapshot(snapshot.id)).status is SagaStatus.COMPLETED


async def test_p19_a_foreign_token_changes_nothing(database: Site, world: World) -> None:
    """Another saga's token, and one that nobody ever had, are answered False."""
    orchestrator = database.joins(trip(world, **PATIENT))
    mine = await waiting(orchestrator, world)
    world.plan("hotel", ValueError("full"))
    other_id = await orchestrator.start(**{**ORDER, "aggregation_id": "order-2"})
    other = await orchestrator.get_snapshot(other_id)

    for token in (other.step_execution_token, uuid4(), None):
        assert await soon(orchestrator.notify(saga_id=mine.id, token=token)) is False  # type: ignore[arg-type]

    assert await orchestrator.get_snapshot(mine.id) == mine


async def test_p19_a_saga_that_does_not_wait_cannot_be_notified(database: Site, world: World) -> None:
    """While a step is in flight not even the row's token is a wait's; after the end there is none."""
    orchestrator, elsewhere = database.joins(trip(world)), database.joins(trip(world))
    gate = world.gate("hotel")
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    snapshot = await elsewhere.get_snapshot(world.contexts[0].saga_id)

    assert await soon(elsewhere.notify(saga_id=snapshot.id, token=snapshot.step_execution_token)) is False
    gate.open()
    await soon(running)
    assert await soon(elsewhere.notify(saga_id=snapshot.id, token=snapshot.step_execution_token)) is False

    assert world.calls == ["flight", "hotel", "car"]


async def test_a_saga_at_work_cannot_be_notified_although_a_branch_of_it_waits(database: Site, world: World) -> None:
    """While an owner has the saga the row's token is his, and is no wait's; the branch waits for its time."""
    builder = SagaBuilder()
    with builder.parallel():
        for name, said in (("flight", {}), ("hotel", PATIENT["hotel"])):
            builder.add_step(step=Deed(world, name), input_map=lambda ctx: Input(), step_id=name, **said)
    orchestrator, elsewhere = database.joins(builder.build()), database.joins(builder.build())
    gate = world.gate("flight")
    world.plan("hotel", ValueError("full"))
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    while True:
        snapshot = await elsewhere.get_snapshot(world.contexts[0].saga_id)
        if snapshot.retry_counter:
            break

    assert await soon(elsewhere.notify(saga_id=snapshot.id, token=snapshot.step_execution_token)) is False

    gate.open()
    await soon(running)
    waiting_now = await elsewhere.get_snapshot(snapshot.id)
    assert waiting_now.status is SagaStatus.SUSPENDED
    assert waiting_now.step_execution_token != snapshot.step_execution_token
    assert sorted(world.calls) == ["flight", "hotel"]


async def test_an_unknown_saga_cannot_be_notified(on_sqlite: Site, world: World) -> None:
    """There is no saga to be stale about."""
    with pytest.raises(SagaNotFoundError):
        await on_sqlite.joins(trip(world)).notify(saga_id=uuid4(), token=uuid4())


async def test_p6_the_event_is_there_for_the_next_attempt(database: Site, world: World) -> None:
    """`input_map` sees the event as `latest_event`, and the history keeps it."""
    seen: list[Any] = []

    def look(ctx: Any) -> Input:
        seen.append(ctx.latest_event)
        return Input()

    builder = SagaBuilder()
    builder.add_step(step=Deed(world, "hotel"), input_map=look, step_id="hotel", **PATIENT["hotel"])
    orchestrator = database.joins(builder.build())
    snapshot = await waiting(orchestrator, world)

    token = snapshot.step_execution_token
    assert await soon(orchestrator.notify(saga_id=snapshot.id, token=token, event={"rooms": 2})) is True

    assert seen == [None, {"rooms": 2}]
    history = (await orchestrator.engine.store.history([snapshot.id]))[snapshot.id]
    assert [row.step_id for row in history] == ["hotel", "notify", "hotel"]


async def test_notifications_at_once_have_one_winner(database: Site, world: World) -> None:
    """However many bring the token at once, exactly one is told True, and one attempt is made."""
    everywhere = [database.joins(trip(world, **PATIENT)) for _ in range(3)]
    snapshot = await waiting(everywhere[0], world)

    calls = (o.notify(saga_id=snapshot.id, token=snapshot.step_execution_token) for o in everywhere * 2)
    answers = await soon(asyncio.gather(*calls))

    assert sorted(answers) == [False] * 5 + [True]
    assert world.calls == ["flight", "hotel", "hotel", "car"]


async def test_a_notification_and_the_timer_at_once_make_one_attempt(database: Site, world: World) -> None:
    """The wait is ended by the one or by the other: the next attempt is made once."""
    soonish = {"hotel": {"retry_policy": FixedRetry(max_attempts=3, delay=timedelta(milliseconds=1))}}
    told, worker = database.joins(trip(world, **soonish)), database.joins(trip(world, **soonish))
    world.plan("hotel", ValueError("full"))
    saga_id = await told.start(**ORDER)
    snapshot = await told.get_snapshot(saga_id)

    notified = told.notify(saga_id=saga_id, token=snapshot.step_execution_token)  # type: ignore[arg-type]
    await soon(asyncio.gather(notified, worker.run_due(), worker.run_due()))

    assert (await soon(told.result(saga_id))).status is SagaStatus.COMPLETED
    assert world.calls == ["flight", "hotel", "hotel", "car"]
