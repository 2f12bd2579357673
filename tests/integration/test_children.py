"""Children: sagas that another saga starts and waits for, each with a row of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator import (
    FixedRetry,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaSnapshot,
    SagaStatus,
    StepKind,
)
from saga_orchestrator.errors import DatabaseTimeoutError
from saga_orchestrator.storage.rows import Head, SagaFilter
from saga_orchestrator.storage.transaction import SagaTransaction
from saga_orchestrator.testing import ManualClock
from tests.support.sagas import NAME, PATIENCE, Deed, Gate, Input, Output, Site, TripSaga, World, soon, trip

Orchestrator = SagaOrchestrator[TripSaga]
ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {"number": 3}, "aggregation_id": "order-1"}
CHILD = "hop"


def family(world: World, **said: Any) -> SagaDefinition:
    """Return a saga that reserves, has a child make its hop, and ships."""
    builder = SagaBuilder()
    first = builder.add_step(step=Deed(world, "reserve"), input_map=lambda ctx: Input(number=3), step_id="reserve")
    hop = builder.add_child(
        CHILD,
        input_map=lambda out: {"number": len(out.ref)},
        depends_on=first,
        step_id=CHILD,
        **{"output_model": Output, **said},
    )
    builder.add_step(
        step=Deed(world, "ship"),
        input_map=lambda out: Input(number=len(getattr(out, "ref", ""))),
        depends_on=hop,
        step_id="ship",
    )
    return builder.build()


def joins(site: Site, world: World, child: SagaDefinition | None = None, /, **said: Any) -> Orchestrator:
    """Return the orchestrator of another process, which knows parent and child."""
    options = {name: said.pop(name) for name in ("clock",) if name in said}
    orchestrator = site.joins(family(world, **said), **options)
    orchestrator.register(CHILD, child or trip(world, "x", "y"))
    return orchestrator


async def started(orchestrator: Orchestrator) -> UUID:
    saga_id: UUID = await soon(orchestrator.start(**ORDER))
    return saga_id


async def come_to(orchestrator: Orchestrator, saga_id: UUID) -> SagaStatus:
    """Return what a saga has come to, over or STUCK."""
    status: SagaStatus = (await soon(orchestrator.result(saga_id))).status
    return status


async def children(orchestrator: Orchestrator) -> list[Head]:
    """Return the rows of all children, oldest first."""
    return (await orchestrator.engine.store.heads(SagaFilter(saga_name=CHILD), 99, None))[::-1]


async def child_of(orchestrator: Orchestrator) -> Head:
    (child,) = await children(orchestrator)
    return child


async def until(orchestrator: Orchestrator, saga_id: UUID, found: Callable[[SagaSnapshot], Any]) -> None:
    """Look at a saga until something is so, whether it has been at rest before or not."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not found(await orchestrator.get_snapshot(saga_id)):
            pass


async def test_f4_a_child_returns_its_result_to_its_parent(database: Site, world: World) -> None:
    """It has a row of its own, with the parent's trace; its last step's output is the output of the parent's step."""
    orchestrator = joins(database, world)

    parent = await started(orchestrator)

    result = await soon(orchestrator.result(parent))
    assert result.status is SagaStatus.COMPLETED
    assert result.outputs[CHILD] == {"ref": "y-9"}
    assert result.outputs["ship"] == {"ref": "ship-3"}
    assert world.calls == ["reserve", "x", "y", "ship"]
    child = await child_of(orchestrator)
    assert (child.parent_id, child.aggregation_id, child.status) == (parent, "order-1/hop", SagaStatus.COMPLETED)
    assert child.trace_id == (await orchestrator.get_snapshot(parent)).trace_id


async def test_a_database_that_is_slow_when_a_child_begins_is_no_failure_of_its_parent(
    database: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is rolled back, and the step is done again under the same attempt."""
    orchestrator = joins(database, world)
    store, refused = orchestrator.engine.store, list[int]()
    add = store.add

    async def slow_once(*args: Any) -> Any:
        if not refused:
            refused.append(1)
            raise DatabaseTimeoutError(1.35) from asyncio.CancelledError()
        return await add(*args)

    monkeypatch.setattr(store, "add", slow_once)
    parent = await started(orchestrator)

    assert await come_to(orchestrator, parent) is SagaStatus.COMPLETED
    assert refused == [1]
    assert world.calls == ["reserve", "x", "y", "ship"]


async def test_f4_a_parent_waits_for_a_child_that_waits(database: Site, world: World) -> None:
    """Both are SUSPENDED, and the parent says what it waits for; nobody owns either."""
    builder = SagaBuilder()
    builder.add_event("go", step_id="go")
    orchestrator = joins(database, world, builder.build(), output_model=None)
    parent = await started(orchestrator)
    child = await child_of(orchestrator)
    await until(orchestrator, child.id, lambda now: now.awaiting == "event:go")
    (wait,) = (await orchestrator.get_snapshot(parent)).waits
    assert (wait.step_id, wait.correlation_id) == (CHILD, str(child.id))

    await soon(orchestrator.signal("go", saga_id=child.id, payload={"so": 1}))

    assert await come_to(orchestrator, parent) is SagaStatus.COMPLETED
    assert (await orchestrator.result(parent)).outputs[CHILD] == {"so": 1}


async def test_f4_a_child_that_fails_fails_its_parent(database: Site, world: World) -> None:
    """Both are undone, and the parent tells the child's error."""
    orchestrator = joins(database, world)
    world.plan("y", PermanentError("no seat"))

    parent = await started(orchestrator)

    result = await soon(orchestrator.result(parent))
    assert result.status is SagaStatus.COMPENSATED
    assert "no seat" in str(result.error)
    assert world.calls == ["reserve", "x", "y", "undo x", "undo reserve"]
    assert (await child_of(orchestrator)).status is SagaStatus.COMPENSATED


async def test_f4_a_child_that_has_completed_is_undone_with_its_parent(database: Site, world: World) -> None:
    """In its turn; nobody but its parent may order that."""
    orchestrator = joins(database, world)
    world.plan("ship", PermanentError("no lorry"))

    parent = await started(orchestrator)

    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert world.calls[-4:] == ["ship", "undo y", "undo x", "undo reserve"]
    child = await child_of(orchestrator)
    assert child.status is SagaStatus.COMPENSATED
    ordered = [
        row for row in (await SagaAdmin(engine=orchestrator.engine).get_saga(child.id)).step_history if row.actor
    ]
    assert [(row.step_id, row.actor) for row in ordered] == [("compensate", f"saga {parent}")]


async def test_f4_a_cancelled_parent_reaches_a_child_at_work(database: Site, world: World) -> None:
    """The child lets its step end, and is undone; then the parent is."""
    orchestrator = joins(database, world)
    gate = world.gate("x")
    parent = await started(orchestrator)
    await gate.wait_reached()

    await soon(SagaAdmin(engine=orchestrator.engine).cancel(parent, actor="ann"))

    assert (await orchestrator.get_snapshot(parent)).status is SagaStatus.COMPENSATING
    gate.open()
    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert world.calls == ["reserve", "x", "undo x", "undo reserve"]
    assert (await child_of(orchestrator)).status is SagaStatus.COMPENSATED


async def test_f4_an_aborted_parent_leaves_its_child_alone(database: Site, world: World) -> None:
    """It goes on, and nobody minds its end."""
    orchestrator = joins(database, world)
    gate = world.gate("x")
    parent = await started(orchestrator)
    await gate.wait_reached()
    await soon(SagaAdmin(engine=orchestrator.engine).abort(parent))
    gate.open()

    assert await come_to(orchestrator, (await child_of(orchestrator)).id) is SagaStatus.COMPLETED
    snapshot = await orchestrator.get_snapshot(parent)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.FAILED, ("reserve", CHILD))


async def test_n1_a_crash_beside_the_start_starts_no_second_child(
    database: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is started with the record that its parent waits: a crash leaves both or neither."""
    dying, other = joins(database, world), joins(database, world)
    gate, settle = Gate(), SagaTransaction.settle

    async def dies_once(self: Any, *said: Any) -> None:
        monkeypatch.setattr(SagaTransaction, "settle", settle)
        await gate()

    monkeypatch.setattr(SagaTransaction, "settle", dies_once)
    starting = asyncio.create_task(dying.start(**ORDER))
    await gate.wait_reached()
    (parent,) = dying.engine.drivers
    dying.engine.drivers[parent].lose()
    await soon(starting)
    assert await children(other) == []
    await database.make_due(parent)

    await soon(other.run_due())

    assert await come_to(other, parent) is SagaStatus.COMPLETED
    assert world.calls == ["reserve", "x", "y", "ship"]
    assert len(await children(other)) == 1


async def test_n13_the_end_of_a_child_whose_process_dies_is_heard(database: Site, world: World) -> None:
    """It was posted by the very write that ended the child; whoever calls `run_due` a little later delivers it."""
    clock = ManualClock()
    dying, other = joins(database, world, clock=clock), joins(database, world, clock=clock)
    dying.engine._mailroom.look_soon = lambda saga_id: None  # type: ignore[method-assign]
    gate = world.gate("y")
    parent = await started(dying)
    await gate.wait_reached()
    gate.open()
    assert await come_to(dying, (await child_of(dying)).id) is SagaStatus.COMPLETED

    await soon(other.run_due())
    assert (await other.get_snapshot(parent)).status is SagaStatus.SUSPENDED
    clock.advance(timedelta(seconds=5))
    await soon(other.run_due())

    assert await come_to(other, parent) is SagaStatus.COMPLETED


async def test_a_rewound_step_has_another_child(database: Site, world: World) -> None:
    """The first one is undone; the step that begins again starts one of its own."""
    builder = SagaBuilder()
    builder.add_child(CHILD, input_map=lambda ctx: {}, output_model=Output, step_id=CHILD)
    builder.add_event("go", step_id="go")
    orchestrator = database.joins(builder.build())
    orchestrator.register(CHILD, trip(world, "x"))
    parent = await started(orchestrator)
    await until(orchestrator, parent, lambda now: now.awaiting == "event:go")

    await soon(SagaAdmin(engine=orchestrator.engine).rewind(parent, CHILD))

    await until(orchestrator, parent, lambda now: now.awaiting == "event:go")
    assert world.calls == ["x", "undo x", "x"]
    assert [head.status for head in await children(orchestrator)] == [SagaStatus.COMPENSATED, SagaStatus.COMPLETED]
    await soon(SagaAdmin(engine=orchestrator.engine).cancel(parent))
    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert world.calls == ["x", "undo x", "x", "undo x"]


async def test_a_detached_child_is_nobodys(database: Site, world: World) -> None:
    """The parent goes on with its id, and what becomes of either does not reach the other."""
    orchestrator = joins(database, world, detached=True, output_model=None)
    gate = world.gate("y")
    world.plan("ship", PermanentError("no lorry"))

    parent = await started(orchestrator)

    result = await soon(orchestrator.result(parent))
    child = await child_of(orchestrator)
    assert (result.status, result.outputs[CHILD]) == (SagaStatus.COMPENSATED, str(child.id))
    assert child.parent_id is None
    await gate.wait_reached()
    gate.open()
    assert await come_to(orchestrator, child.id) is SagaStatus.COMPLETED
    assert await database.value("SELECT count(*) FROM trip_saga_inbox") == 0


async def test_a_child_that_is_not_registered_fails_the_step(database: Site, world: World) -> None:
    """With the names that are; nothing was started, and the parent is undone."""
    orchestrator = database.joins(family(world))

    result = await soon(orchestrator.result(await started(orchestrator)))

    assert result.status is SagaStatus.COMPENSATED
    assert f"Saga '{CHILD}' is not registered; known: {NAME}." in str(result.error)
    assert world.calls == ["reserve", "undo reserve"]
    assert await children(orchestrator) == []


async def test_a_child_whose_aggregate_is_taken_fails_the_step(database: Site, world: World) -> None:
    """Somebody else's saga has its place; it is tried again as the step says, and the parent is undone."""
    orchestrator = joins(database, world)
    gate = world.gate("x")
    running = asyncio.create_task(orchestrator.start(**{**ORDER, "saga_name": CHILD, "aggregation_id": "order-1/hop"}))
    await gate.wait_reached()

    result = await soon(orchestrator.result(await started(orchestrator)))

    assert result.status is SagaStatus.COMPENSATED
    assert "still active for aggregation_id 'order-1/hop'" in str(result.error)
    gate.open()
    assert await come_to(orchestrator, await soon(running)) is SagaStatus.COMPLETED


async def test_a_parent_waits_for_a_child_that_is_stuck(database: Site, world: World) -> None:
    """STUCK is not over: when a person has resolved it, the parent goes on."""
    orchestrator = joins(
        database, world, trip(world, "p", "r", p={"kind": StepKind.PIVOT}, r={"kind": StepKind.RETRIABLE})
    )
    world.plan("r", PermanentError("not now"))
    parent = await started(orchestrator)
    child = await child_of(orchestrator)
    assert await come_to(orchestrator, child.id) is SagaStatus.STUCK
    assert (await orchestrator.get_snapshot(parent)).awaiting == "event:saga.ended"

    await soon(SagaAdmin(engine=orchestrator.engine).retry_step(child.id, actor="ann"))

    assert await come_to(orchestrator, parent) is SagaStatus.COMPLETED


async def test_a_child_that_is_stuck_on_its_way_back_holds_up_its_parents(database: Site, world: World) -> None:
    """Nothing is said to be undone that is not; a waiver in the child lets the parent's undo go on."""
    orchestrator = joins(database, world)
    admin = SagaAdmin(engine=orchestrator.engine)
    world.plan("ship", PermanentError("no lorry"))
    world.plan("undo x", PermanentError("gone"))
    parent = await started(orchestrator)
    child = await child_of(orchestrator)
    await until(orchestrator, child.id, lambda now: now.status is SagaStatus.STUCK)
    await until(orchestrator, parent, lambda now: now.awaiting == "event:saga.ended")
    assert (await orchestrator.get_snapshot(parent)).status is SagaStatus.COMPENSATING

    await soon(admin.waive_step(child.id, "x", actor="ann"))

    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert world.calls[-1] == "undo reserve"


async def test_what_stands_of_a_child_stands_in_its_parent(database: Site, world: World) -> None:
    """A child that is past its pivot cannot be undone: its parent is STUCK with it, and never COMPENSATED."""
    orchestrator = joins(database, world, trip(world, "x", "p", p={"kind": StepKind.PIVOT}))
    world.plan("ship", PermanentError("no lorry"))

    parent = await started(orchestrator)

    result = await soon(orchestrator.result(parent))
    assert (result.status, result.residue) == (SagaStatus.STUCK, (CHILD,))
    assert (await child_of(orchestrator)).status is SagaStatus.COMPLETED
    assert world.calls[-1] == "undo reserve"


async def test_a_child_that_is_aborted_is_undone_with_its_parent(database: Site, world: World) -> None:
    """It has failed with its effects standing; its parent has to fail, and takes them back."""
    orchestrator = joins(database, world, trip(world, "x", "y", "z"))
    gate = world.gate("z")
    parent = await started(orchestrator)
    await gate.wait_reached()

    await soon(SagaAdmin(engine=orchestrator.engine).abort((await child_of(orchestrator)).id))

    result = await soon(orchestrator.result(parent))
    assert (result.status, "What stands: x, y, z" in str(result.error)) == (SagaStatus.COMPENSATED, True)
    assert world.calls == ["reserve", "x", "y", "z", "undo z", "undo y", "undo x", "undo reserve"]


async def aborted_beside_its_owner(database: Site, world: World, clock: ManualClock) -> tuple[Orchestrator, UUID, UUID]:
    """Return a process whose child was aborted while another one was at work on it, the parent, and the child.

    The undo of the parent has waited for the lease of the other process, which has ended now.
    """
    owner, other = (joins(database, world, trip(world, "x", "y", "z"), clock=clock) for _ in range(2))
    gate = world.gate("z")
    parent = await started(owner)
    await gate.wait_reached()
    child = (await child_of(owner)).id
    await soon(SagaAdmin(engine=other.engine).abort(child))
    await until(other, parent, lambda found: found.status is SagaStatus.COMPENSATING and is_timed(found))
    assert "undo x" not in world.calls

    gate.open()
    await database.edit(child, awaiting="owner:2001-01-01T00:00:00+00:00")
    return other, parent, child


async def test_a_child_that_is_aborted_elsewhere_is_undone_when_its_owner_is_gone(database: Site, world: World) -> None:
    """The owner learns of the abort when it renews its lease. Until then the undo of the parent waits, and tries on."""
    clock = ManualClock()
    other, parent, _ = await aborted_beside_its_owner(database, world, clock)
    clock.advance(timedelta(minutes=2))
    await soon(other.run_due())

    assert await come_to(other, parent) is SagaStatus.COMPENSATED
    assert world.calls == ["reserve", "x", "y", "z", "undo z", "undo y", "undo x", "undo reserve"]


async def test_a_child_that_an_operator_has_go_on_while_its_undo_waits_is_undone_when_it_has_completed(
    database: Site, world: World
) -> None:
    """Its parent waits for the former owner of the aborted child, and hears of its success instead."""
    other, parent, child = await aborted_beside_its_owner(database, world, ManualClock())
    await soon(SagaAdmin(engine=other.engine).retry_step(child))

    assert await come_to(other, parent) is SagaStatus.COMPENSATED
    assert world.calls[-4:] == ["undo z", "undo y", "undo x", "undo reserve"]


async def test_an_operator_may_try_again_what_was_left_of_a_child(database: Site, world: World) -> None:
    """A child that is aborted while it is being undone leaves its parent STUCK, until it is undone after all."""
    orchestrator = joins(database, world)
    admin = SagaAdmin(engine=orchestrator.engine)
    world.plan("ship", PermanentError("no lorry"))
    gate = world.gate("undo x")
    parent = await started(orchestrator)
    await gate.wait_reached()
    child = await child_of(orchestrator)
    await soon(admin.abort(child.id))
    result = await soon(orchestrator.result(parent))
    assert (result.status, result.residue) == (SagaStatus.STUCK, (CHILD,))

    await soon(admin.compensate_step(parent))

    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert (await child_of(orchestrator)).status is SagaStatus.COMPENSATED


async def test_a_child_that_has_failed_may_be_tried_again_and_its_parent_after_it(database: Site, world: World) -> None:
    """Where nothing has been undone: the parent waits for the same child once more."""
    left = SagaBuilder(compensate_on_failure=False)
    left.add_step(step=Deed(world, "x"), input_map=lambda ctx: Input(), step_id="x")
    parents = SagaBuilder(compensate_on_failure=False)
    parents.add_child(CHILD, input_map=lambda ctx: {}, output_model=Output, step_id=CHILD)
    orchestrator = database.joins(parents.build())
    orchestrator.register(CHILD, left.build())
    admin = SagaAdmin(engine=orchestrator.engine)
    world.plan("x", PermanentError("not now"))
    parent = await started(orchestrator)
    assert await come_to(orchestrator, parent) is SagaStatus.FAILED
    gate = world.gate("x")
    retrying = asyncio.create_task(admin.retry_step((await child_of(orchestrator)).id))
    await gate.wait_reached()

    await soon(admin.retry_step(parent))

    assert (await orchestrator.get_snapshot(parent)).awaiting == "event:saga.ended"
    gate.open()
    await soon(retrying)
    assert await come_to(orchestrator, parent) is SagaStatus.COMPLETED
    assert (await orchestrator.result(parent)).outputs[CHILD] == {"ref": "x-0"}


async def test_a_child_that_nothing_is_to_be_undone_of_is_left(database: Site, world: World) -> None:
    """`compensation=None` says so; the rest of the parent is undone."""
    orchestrator = joins(database, world, compensation=None)
    world.plan("ship", PermanentError("no lorry"))

    parent = await started(orchestrator)

    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert (await child_of(orchestrator)).status is SagaStatus.COMPLETED


async def test_a_child_that_only_reads_needs_no_undo(database: Site, world: World) -> None:
    """It stays COMPLETED, and its parent is COMPENSATED."""
    orchestrator = joins(database, world, trip(world, "look", look={"kind": StepKind.COMPENSATABLE}))
    only_reads = SagaBuilder(version=2)
    only_reads.add_constant({"ref": "seen"}, step_id="look")
    orchestrator.register(CHILD, only_reads.build())
    world.plan("ship", PermanentError("no lorry"))

    assert await come_to(orchestrator, await started(orchestrator)) is SagaStatus.COMPENSATED
    assert (await child_of(orchestrator)).status is SagaStatus.COMPLETED


async def test_an_output_that_does_not_fit_fails_the_step(database: Site, world: World) -> None:
    """The child has completed, and is undone with its parent."""
    odd = SagaBuilder()
    odd.add_step(step=Deed(world, "x"), input_map=lambda ctx: Input(), step_id="x")
    odd.add_constant({"ref": {"not": "a text"}}, step_id="end")
    orchestrator = joins(database, world, odd.build())

    result = await soon(orchestrator.result(await started(orchestrator)))

    assert result.status is SagaStatus.COMPENSATED
    assert "its output does not fit Output: ref" in str(result.error)
    assert world.calls == ["reserve", "x", "undo x", "undo reserve"]


async def test_a_child_that_ends_side_by_side_returns_all_its_ends(database: Site, world: World) -> None:
    """By step id."""
    wide = SagaBuilder()
    with wide.parallel():
        wide.add_step(step=Deed(world, "x"), input_map=lambda ctx: Input(), step_id="x")
        wide.add_step(step=Deed(world, "y"), input_map=lambda ctx: Input(), step_id="y")
    orchestrator = joins(database, world, wide.build(), output_model=None)

    result = await soon(orchestrator.result(await started(orchestrator)))

    assert result.outputs[CHILD] == {"x": {"ref": "x-0"}, "y": {"ref": "y-0"}}


async def test_a_parent_in_a_process_that_does_not_know_the_child_looks_again_later(
    database: Site, world: World
) -> None:
    """A new version of the child, in a rolling deploy: it is no reason to fail, nor to leave the child undone."""
    clock = ManualClock()
    new, old = joins(database, world, clock=clock), joins(database, world, clock=clock)
    new.register(CHILD, trip(world, "x", "y", version=2))
    new.engine._mailroom.look_soon = lambda saga_id: None  # type: ignore[method-assign]
    last, ship = world.gate("y"), world.gate("ship")
    world.plan("ship", PermanentError("no lorry"))
    parent = await started(new)
    await last.wait_reached()
    last.open()
    assert await come_to(new, (await child_of(new)).id) is SagaStatus.COMPLETED
    del new.engine._mailroom.look_soon

    clock.advance(timedelta(seconds=5))
    await soon(old.run_due())
    await until(old, parent, is_timed)
    clock.advance(timedelta(minutes=1))
    running = asyncio.create_task(new.run_due())
    await ship.wait_reached()
    new.engine.drivers[parent].lose()
    await soon(running)
    await database.make_due(parent)
    await soon(old.run_due())
    await until(old, parent, is_timed)
    assert (await old.get_snapshot(parent)).status is SagaStatus.COMPENSATING
    clock.advance(timedelta(minutes=1))
    await soon(new.run_due())

    assert await come_to(new, parent) is SagaStatus.COMPENSATED
    assert world.calls[3:] == ["ship", "ship", "undo ship", "undo y", "undo x", "undo reserve"]


def is_timed(snapshot: SagaSnapshot) -> bool:
    """Return whether a saga waits for an event, and no longer than some time."""
    return snapshot.awaiting == "event:saga.ended" and snapshot.deadline_at is not None


async def test_ten_generations(database: Site, world: World) -> None:
    """Each waits for the next; the last one's failure undoes them all, the youngest first."""
    orchestrator = database.joins(generation(world, 0))
    for number in range(1, 11):
        orchestrator.register(f"saga-{number}", generation(world, number))
    parent = await started(orchestrator)
    assert await come_to(orchestrator, parent) is SagaStatus.COMPLETED
    assert world.calls == [f"deed-{number}" for number in range(11)]
    world.plan("deed-10", PermanentError("enough"))

    second = await soon(orchestrator.start(**{**ORDER, "aggregation_id": "a" * 250}))

    assert await come_to(orchestrator, second) is SagaStatus.COMPENSATED
    assert world.calls[-10:] == [f"undo deed-{number}" for number in range(9, -1, -1)]
    heads = await orchestrator.engine.store.heads(SagaFilter(), 11, None)
    assert {head.status for head in heads[1:]} == {SagaStatus.COMPENSATED}
    assert len({head.aggregation_id for head in heads}) == 11


def generation(world: World, number: int) -> SagaDefinition:
    """Return a saga that does a deed, and has a child of the next generation, if there is one."""
    builder = SagaBuilder()
    builder.add_step(step=Deed(world, f"deed-{number}"), input_map=lambda ctx: Input(), step_id="deed")
    if number < 10:
        builder.add_child(f"saga-{number + 1}", input_map=lambda ctx: {}, step_id="child")
    return builder.build()


async def test_a_saga_may_be_its_own_child(database: Site, world: World) -> None:
    """By a choice that ends the recursion."""
    again = SagaBuilder()
    again.add_child(NAME, input_map=lambda ctx: {"left": ctx.initial_data["left"] - 1}, step_id="again")
    countdown = SagaBuilder()
    countdown.add_step(
        step=Deed(world, "count"), input_map=lambda ctx: Input(number=ctx.initial_data["left"]), step_id="count"
    )
    countdown.add_choice(
        choose=lambda ctx: "more" if ctx.initial_data["left"] else "done",
        branches={"more": again.build()},
        otherwise=None,
        step_id="on",
    )
    orchestrator = database.joins(countdown.build())

    saga_id = await soon(orchestrator.start(saga_name=NAME, initial_data={"left": 3}, aggregation_id="a"))

    assert await come_to(orchestrator, saga_id) is SagaStatus.COMPLETED
    assert world.calls == ["count"] * 4


async def aborted_elsewhere(
    database: Site, world: World, clock: ManualClock
) -> tuple[Orchestrator, SagaAdmin[TripSaga], UUID, UUID]:
    """Return a process that knows a parent and not its child, its admin, the parent, and the child, aborted."""
    patient = {"retry_policy": FixedRetry(max_attempts=9, delay=timedelta(hours=9))}
    both = joins(database, world, trip(world, "x", "y", y=patient), clock=clock)
    world.plan("y", ValueError("full"))
    parent = await started(both)
    child = (await child_of(both)).id
    await until(both, child, lambda found: found.status is SagaStatus.SUSPENDED)
    await both.aclose()
    orchestrator = database.joins(family(world), clock=clock)
    admin = SagaAdmin[TripSaga](engine=orchestrator.engine)
    await admin.abort(child, actor="ann")
    return orchestrator, admin, parent, child


async def waive(admin: SagaAdmin[TripSaga], saga_id: UUID) -> None:
    """Waive all that stands of a saga."""
    for step_id in (await admin.get_saga(saga_id)).residue:
        await admin.waive_step(saga_id, step_id, actor="ann")


async def test_a_child_that_no_process_knows_is_over_by_its_row(database: Site, world: World) -> None:
    """It was aborted, and all that stood of it waived: nothing is left for which its parent could wait."""
    clock = ManualClock()
    orchestrator, admin, parent, child = await aborted_elsewhere(database, world, clock)
    await waive(admin, child)
    clock.advance(timedelta(minutes=2))
    await soon(orchestrator.run_due())

    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert f"child saga {child} ('{CHILD}') is FAILED" in str((await orchestrator.get_snapshot(parent)).last_error)
    assert world.calls[-1] == "undo reserve"


async def test_what_stands_of_a_child_that_no_process_knows_holds_up_its_parents_undo(
    database: Site, world: World
) -> None:
    """A process that knows the child could undo it; so the parent waits until it is undone, or waived."""
    clock = ManualClock()
    orchestrator, admin, parent, child = await aborted_elsewhere(database, world, clock)
    clock.advance(timedelta(minutes=2))
    await soon(orchestrator.run_due())
    await until(orchestrator, parent, lambda found: found.status is SagaStatus.COMPENSATING and is_timed(found))
    assert "What stands: x" in str((await orchestrator.get_snapshot(parent)).last_error)
    assert "undo reserve" not in world.calls

    await waive(admin, child)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (await orchestrator.get_snapshot(parent)).status is SagaStatus.COMPENSATING:  # it looks now and then
            clock.advance(timedelta(minutes=2))
            await orchestrator.run_due()
    assert await come_to(orchestrator, parent) is SagaStatus.COMPENSATED
    assert world.calls[-1] == "undo reserve"
