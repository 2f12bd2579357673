"""What failure does: a closed menu of actions, chosen by the definition or by an operator, and answered by values."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from saga_orchestrator import (
    CompensationResult,
    DirtyState,
    FailureAction,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    StepKind,
)
from saga_orchestrator.kernel.order_events import FailureOrdered
from saga_orchestrator.testing import ManualClock
from tests.support.sagas import NAME, Deed, Gate, Input, OneWay, Site, TripSaga, World, soon, trip, until

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {"number": 7}, "aggregation_id": "order-1"}
WHO = {"actor": "ann", "reason": "ticket 12"}
FULL = PermanentError("full")


class Hooks:
    """The two hooks of a definition: they note what they were given, and answer, or raise, as planned."""

    def __init__(self, *answers: Any) -> None:
        self.calls: list[Any] = []
        self.answers = list(answers)
        self.gate: Gate | None = None

    async def close_all(self, saga_id: UUID) -> bool:
        self.calls.append(saga_id)
        if self.gate is not None:
            await self.gate()
        return self._answer()

    def alert_human(self, saga_id: UUID, dirty: DirtyState) -> None:
        self.calls.append((saga_id, dirty))
        self._answer()

    def _answer(self) -> Any:
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


def journey(world: World, **settings: Any) -> SagaDefinition:
    """Return a saga of a flight, a hotel that can fail, and a car."""
    builder = SagaBuilder(**settings)
    for name in ("flight", "hotel", "car"):
        builder.add_step(step=Deed(world, name), input_map=lambda ctx: Input(number=7), step_id=name)
    return builder.build()


def acting(world: World, hooks: Hooks, action: str) -> SagaDefinition:
    return journey(world, on_failure=action, close_all=hooks.close_all, alert_human=hooks.alert_human)


def by_hand(world: World, hooks: Hooks | None = None) -> SagaDefinition:
    """Return a definition that leaves a failure to operators."""
    given = {} if hooks is None else {"close_all": hooks.close_all, "alert_human": hooks.alert_human}
    return journey(world, on_failure="NOOP", **given)


def admin_of(orchestrator: SagaOrchestrator[TripSaga]) -> SagaAdmin[TripSaga]:
    return SagaAdmin[TripSaga](engine=orchestrator.engine)


async def failed(orchestrator: SagaOrchestrator[TripSaga], world: World) -> UUID:
    """Return a saga whose hotel was full, with a flight that stands."""
    world.plan("hotel", FULL)
    saga_id: UUID = await soon(orchestrator.start(**ORDER))
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.FAILED
    return saga_id


async def is_dirty(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> bool:
    """Return whether a saga is in the operators' queue; both ways to ask say the same."""
    listed = saga_id in await admin_of(orchestrator).dirty_sagas()
    assert (await admin_of(orchestrator).dirty_state(saga_id) is not None) is listed
    return listed


async def signed(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> list[tuple[Any, ...]]:
    """Return the orders that a saga's history says were carried out: what, by whom, and why."""
    history = (await admin_of(orchestrator).get_saga(saga_id)).step_history
    done = [row for row in history if row.phase == "ORDER" and row.status == "SUCCESS"]
    return [(row.step_id, row.actor, row.reason) for row in done]


async def trail(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> list[str]:
    """Return every line of a saga's history about an order, with how the order stood."""
    history = (await admin_of(orchestrator).get_saga(saga_id)).step_history
    return [f"{row.status} {row.step_id} by {row.actor}" for row in history if row.phase == "ORDER"]


async def test_d2_d4_a_half_done_saga_says_what_failed_and_what_stands(database: Site, world: World) -> None:
    """The failed step with its error, and the recorded outputs of the steps whose effects stand; nothing of others."""
    orchestrator = database.joins(by_hand(world))

    saga_id = await failed(orchestrator, world)

    assert await admin_of(orchestrator).dirty_state(saga_id) == DirtyState(
        saga_id=saga_id,
        saga_name=NAME,
        aggregation_id="order-1",
        status="FAILED",
        failed_step="hotel",
        error="PermanentError('full')",
        partial_state={"flight": {"ref": "flight-7"}},
    )
    assert await admin_of(orchestrator).dirty_state(uuid4()) is None


async def test_d3_the_queue_holds_what_is_half_done(database: Site, world: World) -> None:
    """Newest first, those that are stuck among them; not what has completed, was undone, or failed without a trace."""
    orchestrator = database.joins(by_hand(world))
    orchestrator.register("stuck", trip(world))
    clean = await soon(orchestrator.start(**ORDER))
    world.plan("flight", FULL)
    nothing_acted = await soon(orchestrator.start(**ORDER))
    first = await failed(orchestrator, world)
    world.plan("hotel", FULL)
    world.plan("undo flight", FULL)
    stuck = await soon(orchestrator.start(**{**ORDER, "saga_name": "stuck"}))
    admin = admin_of(orchestrator)

    assert await admin.dirty_sagas() == [stuck, first]
    assert await admin.dirty_sagas(limit=1) == [stuck]
    assert await admin.dirty_sagas(saga_name=NAME) == [first]
    assert [await admin.dirty_state(each) for each in (clean, nothing_acted)] == [None, None]
    found = await admin.dirty_state(stuck)
    assert found is not None
    assert (found.failed_step, found.partial_state) == ("hotel", {"flight": {"ref": "flight-7"}})


async def test_d3_the_queue_is_read_to_its_end(on_sqlite: Site, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clean ones are between those that are dirty."""
    monkeypatch.setattr("saga_orchestrator.admin.dirty._PAGE", 1)
    orchestrator = on_sqlite.joins(by_hand(world))
    dirty = await failed(orchestrator, world)
    for number in range(2):
        world.plan("flight", FULL)
        await soon(orchestrator.start(**{**ORDER, "aggregation_id": f"{number}"}))

    assert await admin_of(orchestrator).dirty_sagas() == [dirty]


async def test_d4_a_process_without_the_definition_sees_it_too(database: Site, world: World) -> None:
    """What may stand is shown; what needs the definition's code is refused, as a value."""
    saga_id = await failed(database.joins(by_hand(world)), world)
    stranger = admin_of(database.joins(None))

    assert await stranger.dirty_sagas() == [saga_id]
    found = await stranger.dirty_state(saga_id)
    assert found is not None
    assert found.partial_state == {"flight": {"ref": "flight-7"}}
    result = await stranger.execute_compensation(saga_id, "CLOSE_ALL", **WHO)
    assert result == CompensationResult(False, f"'{NAME}' is not registered in this process")


async def test_d4_a_row_that_nobody_can_read_is_dirty_all_the_same(database: Site, world: World) -> None:
    """A stuck saga stays in the queue, even if nothing can be told of it; none of the questions raises."""
    orchestrator = database.joins(by_hand(world))
    saga_id = await failed(orchestrator, world)
    await database.edit(saga_id, status="STUCK", awaiting="operator", state="{}")

    found = await admin_of(orchestrator).dirty_state(saga_id)

    assert found is not None
    assert (found.status, found.partial_state) == ("STUCK", {})
    assert await is_dirty(orchestrator, saga_id)


@pytest.mark.parametrize("action", list(FailureAction))
async def test_d6_what_is_not_dirty_is_left_alone(database: Site, world: World, action: FailureAction) -> None:
    """So nothing is compensated twice: neither what completed nor what was dealt with before, nor an unknown saga."""
    hooks = Hooks()
    orchestrator = database.joins(by_hand(world, hooks))
    admin = admin_of(orchestrator)
    done, dealt_with = await soon(orchestrator.start(**ORDER)), await failed(orchestrator, world)
    assert (await admin.execute_compensation(dealt_with, "REVERT")).success
    calls = list(world.calls)

    for saga_id in (done, dealt_with, uuid4()):
        result = await admin.execute_compensation(saga_id, action, **WHO)
        assert result == CompensationResult(False, f"saga {saga_id} is not dirty")

    assert (world.calls, hooks.calls) == (calls, [])


async def test_d6_d7_revert_undoes_precisely(database: Site, world: World) -> None:
    """By the compensations, with the recorded outputs; the saga is clean when, and only when, they have come off."""
    world.plan("undo flight", ConnectionError("away"))
    orchestrator = database.joins(by_hand(world))
    saga_id = await failed(orchestrator, world)
    admin = admin_of(orchestrator)

    first = await soon(admin.execute_compensation(saga_id, FailureAction.REVERT, **WHO))
    assert first == CompensationResult(False, "its rollback has ended as STUCK: PermanentError('full')")
    assert await is_dirty(orchestrator, saga_id)

    second = await soon(admin.execute_compensation(saga_id, "REVERT", **WHO))
    assert second == CompensationResult(True, "everything is undone")
    assert not await is_dirty(orchestrator, saga_id)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert world.calls == ["flight", "hotel", "undo flight", "undo flight"]
    assert await signed(orchestrator, saga_id) == [("compensate", "ann", "ticket 12")] * 2


async def test_a_revert_that_a_child_holds_up_ends_and_names_the_child(database: Site, world: World) -> None:
    """The child waits for a person, who may be the caller; the rollback goes on when it has been resolved."""
    builder = SagaBuilder(on_failure="NOOP")
    hop = builder.add_child("hop", input_map=lambda ctx: {}, step_id="hop")
    builder.add_step(step=Deed(world, "hotel"), input_map=lambda ctx: Input(), depends_on=hop, step_id="hotel")
    orchestrator = database.joins(builder.build())
    orchestrator.register("hop", trip(world, "x"))
    world.plan("hotel", FULL)
    world.plan("undo x", PermanentError("gone"))
    saga_id = await soon(orchestrator.start(**ORDER))
    await soon(orchestrator.result(saga_id))

    told = await soon(admin_of(orchestrator).execute_compensation(saga_id, "REVERT", **WHO))

    (child,) = (await admin_of(orchestrator).list_sagas(saga_name="hop")).items
    assert not told.success
    assert f"waits for saga {child.id}, a child, which is STUCK" in told.message
    await soon(admin_of(orchestrator).waive_step(child.id, "x", **WHO))
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED


async def test_d6_what_cannot_be_reverted_is_refused_by_a_value(database: Site, world: World) -> None:
    """A saga that is stuck past its pivot only goes forward; but everything can be closed, and it is over then."""
    hooks = Hooks()
    builder = SagaBuilder(close_all=hooks.close_all)
    builder.add_step(step=Deed(world, "flight"), input_map=lambda ctx: Input(), step_id="flight")
    builder.add_step(step=OneWay(world, "pay"), input_map=lambda ctx: Input(), step_id="pay", kind=StepKind.PIVOT)
    builder.add_step(step=OneWay(world, "mail"), input_map=lambda ctx: Input(), step_id="mail", kind="RETRIABLE")
    world.plan("mail", FULL)
    orchestrator = database.joins(builder.build())
    saga_id = await soon(orchestrator.start(**ORDER))
    admin = admin_of(orchestrator)
    found = await admin.dirty_state(saga_id)
    assert found is not None
    assert (found.failed_step, list(found.partial_state)) == ("mail", ["flight", "pay"])

    refused = await admin.execute_compensation(saga_id, "REVERT", **WHO)
    assert not refused.success
    assert "it is past its pivot and can only go forward" in refused.message

    assert (await admin.execute_compensation(saga_id, "CLOSE_ALL", **WHO)).success
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.FAILED, ())
    assert not await is_dirty(orchestrator, saga_id)


@pytest.mark.parametrize("answer", [False, None, 1])
async def test_d6_d7_close_all_is_believed_only_if_it_says_true(database: Site, world: World, answer: Any) -> None:
    """It is given the id alone; until it has said True the saga is dirty, and it can be tried again."""
    hooks = Hooks(answer)
    orchestrator = database.joins(by_hand(world, hooks))
    saga_id = await failed(orchestrator, world)
    admin = admin_of(orchestrator)

    first = await admin.execute_compensation(saga_id, "CLOSE_ALL", **WHO)
    assert first == CompensationResult(False, f"close_all answered {answer!r}, and not True; the saga stays dirty")
    assert await is_dirty(orchestrator, saga_id)

    second = await admin.execute_compensation(saga_id, FailureAction.CLOSE_ALL, **WHO)
    assert second == CompensationResult(True, "everything is closed")
    assert not await is_dirty(orchestrator, saga_id)
    assert hooks.calls == [saga_id, saga_id]
    assert world.calls == ["flight", "hotel"]
    assert await signed(orchestrator, saga_id) == [("failure:CLOSE_ALL", "ann", "ticket 12")]


async def test_d6_close_all_needs_a_name(on_sqlite: Site, world: World) -> None:
    """Somebody answers for what is waived; nothing is called before that is known."""
    hooks = Hooks()
    orchestrator = on_sqlite.joins(by_hand(world, hooks))
    saga_id = await failed(orchestrator, world)

    result = await admin_of(orchestrator).execute_compensation(saga_id, "CLOSE_ALL")

    assert (result.success, hooks.calls) == (False, [])
    assert "actor=" in result.message


async def test_d6_an_alert_and_a_noop_leave_it_dirty(database: Site, world: World) -> None:
    """Both succeed, and both stand in the history; the saga stays in the queue."""
    hooks = Hooks()
    orchestrator = database.joins(by_hand(world, hooks))
    saga_id = await failed(orchestrator, world)
    admin = admin_of(orchestrator)

    assert (await admin.execute_compensation(saga_id, "ALERT_HUMAN", **WHO)).success
    assert (await admin.execute_compensation(saga_id, "NOOP")).success

    assert hooks.calls == [(saga_id, await admin.dirty_state(saga_id))]
    assert await is_dirty(orchestrator, saga_id)
    assert await signed(orchestrator, saga_id) == [
        ("failure:ALERT_HUMAN", "ann", "ticket 12"),
        ("failure:NOOP", None, None),
    ]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("CLOSE_ALL", "'trip' was built without close_all="),
        ("ALERT_HUMAN", "'trip' was built without alert_human="),
        ("EXPLODE", "'EXPLODE' is no action; the actions are REVERT, CLOSE_ALL, ALERT_HUMAN, NOOP"),
    ],
)
async def test_d5_d6_what_is_not_on_the_menu_is_answered_by_a_value(
    database: Site, world: World, action: str, message: str
) -> None:
    """An unknown action, or one for which the definition has no hook: nothing is done."""
    orchestrator = database.joins(by_hand(world))
    saga_id = await failed(orchestrator, world)

    result = await admin_of(orchestrator).execute_compensation(saga_id, action, **WHO)

    assert result == CompensationResult(False, message)
    assert await is_dirty(orchestrator, saga_id)


@pytest.mark.parametrize("action", ["CLOSE_ALL", "ALERT_HUMAN"])
async def test_d6_what_a_hook_raises_passes_through(database: Site, world: World, action: str) -> None:
    """It is the operator's to see; the saga is as dirty as before."""
    hooks = Hooks(ConnectionError("away"))
    orchestrator = database.joins(by_hand(world, hooks))
    saga_id = await failed(orchestrator, world)

    with pytest.raises(ConnectionError, match="away"):
        await admin_of(orchestrator).execute_compensation(saga_id, action, **WHO)

    assert await is_dirty(orchestrator, saga_id)
    assert await signed(orchestrator, saga_id) == []


@pytest.mark.parametrize("by_definition", [False, True])
@pytest.mark.parametrize("where", ["in one process", "in two"])
async def test_while_a_saga_is_closed_every_other_order_is_refused(
    database: Site, world: World, where: str, by_definition: bool
) -> None:
    """Whoever ordered it, in whatever process it is at work: the saga is compensated in one way, once."""
    hooks = Hooks()
    hooks.gate = Gate()
    definition = acting(world, hooks, "CLOSE_ALL") if by_definition else by_hand(world, hooks)
    first = database.joins(definition)
    second = first if where == "in one process" else database.joins(definition)
    world.plan("hotel", FULL)
    closing: asyncio.Task[Any] = asyncio.create_task(first.start(**ORDER))
    if not by_definition:
        saga_id = await soon(closing)
        closing = asyncio.create_task(admin_of(first).execute_compensation(saga_id, "CLOSE_ALL", **WHO))
    await hooks.gate.wait_reached()
    (saga_id,) = await admin_of(second).dirty_sagas()
    who = "engine" if by_definition else "ann"
    under_way = f"CLOSE_ALL, ordered by {who}, is under way"

    admin = admin_of(second)
    for action in FailureAction:
        result = await soon(admin.execute_compensation(saga_id, action, actor="bob"))
        assert not result.success
        assert under_way in result.message
    for order in (
        admin.compensate_step(saga_id),
        admin.retry_step(saga_id),
        admin.skip_step(saga_id, step_id="hotel"),
        admin.abort(saga_id),
        admin.cancel(saga_id),
        admin.rewind(saga_id, "flight"),
        admin.waive_step(saga_id, "flight", actor="bob"),
        admin.pause(saga_id),
        admin.resume(saga_id),
    ):
        with pytest.raises(SagaStateError, match=under_way):
            await soon(order)
    hooks.gate.open()
    await soon(closing)

    assert (hooks.calls, world.calls) == ([saga_id], ["flight", "hotel"])
    assert not await is_dirty(second, saga_id)
    lines = [f"{status} failure:CLOSE_ALL by {who}" for status in ("WAITING", "SUCCESS")]
    assert await trail(second, saga_id) == lines


async def test_a_child_that_is_closed_is_not_undone_as_well(database: Site, world: World) -> None:
    """Its parent, which is undone, waits until the hook has ended, and takes what stands then."""
    hooks = Hooks()
    hooks.gate = Gate()
    builder = SagaBuilder()
    builder.add_child("child", input_map=lambda ctx: {}, step_id="child")
    orchestrator = database.joins(builder.build())
    orchestrator.register("child", acting(world, hooks, "CLOSE_ALL"))
    world.plan("hotel", FULL)
    parent = await soon(orchestrator.start(**ORDER))
    await hooks.gate.wait_reached()
    (child,) = (await admin_of(orchestrator).list_sagas(saga_name="child")).items
    with pytest.raises(SagaStateError, match="CLOSE_ALL, ordered by engine, is under way"):
        await admin_of(orchestrator).compensate_step(child.id)
    hooks.gate.open()
    result = await soon(orchestrator.result(parent))

    assert (hooks.calls, world.calls, result.residue) == ([child.id], ["flight", "hotel"], ())
    assert result.status.is_terminal


async def test_of_two_who_close_a_saga_at_once_one_calls_the_hook(database: Site, world: World) -> None:
    """The claim is decided under the saga's lock; the other is told who is at it."""
    hooks = Hooks()
    hooks.gate = Gate()
    engines = [database.joins(by_hand(world, hooks)) for _ in range(2)]
    saga_id = await failed(engines[0], world)
    both = [
        asyncio.create_task(admin_of(each).execute_compensation(saga_id, "CLOSE_ALL", actor=actor))
        for each, actor in zip(engines, ("ann", "bob"), strict=True)
    ]
    done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    (refused,) = [task.result() for task in done]
    hooks.gate.open()
    results = await soon(asyncio.gather(*both))

    assert "is under way" in refused.message
    assert sorted(result.success for result in results) == [False, True]
    assert hooks.calls == [saga_id]


async def test_a_saga_that_is_being_reverted_is_not_closed(database: Site, world: World) -> None:
    """The other way round, too."""
    hooks = Hooks()
    orchestrator = database.joins(by_hand(world, hooks))
    saga_id = await failed(orchestrator, world)
    gate = world.gate("undo flight")
    reverting = asyncio.create_task(admin_of(orchestrator).execute_compensation(saga_id, "REVERT", **WHO))
    await gate.wait_reached()

    refused = await soon(admin_of(orchestrator).execute_compensation(saga_id, "CLOSE_ALL", **WHO))
    order = FailureOrdered(action="CLOSE_ALL", calls=True, closes=True, actor="bob")  # by who looked before
    with pytest.raises(SagaStateError, match="only what is STUCK or has FAILED is dealt with"):
        await soon(orchestrator.engine.deal(saga_id, order))
    gate.open()
    assert (await soon(reverting)).success

    assert (refused, hooks.calls) == (CompensationResult(False, f"saga {saga_id} is not dirty"), [])
    assert world.calls == ["flight", "hotel", "undo flight"]


async def test_what_an_abort_cuts_off_elsewhere_is_not_done_again_before_its_owner_is_gone(
    database: Site, world: World
) -> None:
    """The owner learns of the abort when it renews its lease; until that has ended its undo may be at work."""
    hooks = Hooks()
    owner, other = (database.joins(by_hand(world, hooks)) for _ in range(2))
    saga_id = await failed(owner, world)
    gate = world.gate("undo flight")
    reverting = asyncio.create_task(admin_of(owner).execute_compensation(saga_id, "REVERT", **WHO))
    await gate.wait_reached()
    await admin_of(other).abort(saga_id, **WHO)

    for action in ("CLOSE_ALL", "REVERT", "ALERT_HUMAN"):
        refused = await soon(admin_of(other).execute_compensation(saga_id, action, **WHO))
        assert "while another process was at work on it, which may go on until" in refused.message
    assert (hooks.calls, world.calls) == ([], ["flight", "hotel", "undo flight"])
    assert await is_dirty(other, saga_id)

    gate.open()
    assert not (await soon(reverting)).success
    assert await is_dirty(other, saga_id)
    await database.edit(saga_id, awaiting="owner:2001-01-01T00:00:00+00:00")  # the lease has ended
    closed = await soon(admin_of(other).execute_compensation(saga_id, "CLOSE_ALL", **WHO))

    assert (closed.success, hooks.calls, world.calls.count("undo flight")) == (True, [saga_id], 1)
    assert (await other.get_snapshot(saga_id)).awaiting is None
    shown = [(row.step_id, row.status) for row in (await admin_of(other).get_saga(saga_id)).step_history]
    assert ("flight", "IN_DOUBT") in shown


async def test_a_waiver_of_one_step_lets_nobody_undo_the_others_beside_their_owner(
    database: Site, world: World
) -> None:
    owner, other = (database.joins(by_hand(world)) for _ in range(2))
    gate = world.gate("hotel")
    starting = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    ((saga_id,),) = await database.sql("SELECT id FROM trip_saga")
    saga_id = UUID(str(saga_id))
    await admin_of(other).abort(saga_id, **WHO)
    await admin_of(other).waive_step(saga_id, "hotel", **WHO)
    with pytest.raises(SagaStateError, match="while another process was at work on it"):
        await soon(admin_of(other).compensate_step(saga_id))
    gate.open()
    await soon(starting)

    assert world.calls == ["flight", "hotel"]
    await database.edit(saga_id, awaiting=None)
    await soon(admin_of(other).compensate_step(saga_id))
    assert (await other.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("end", ["stops", "dies"])
async def test_an_action_whose_process_is_gone_is_carried_out_by_the_next(
    database: Site, world: World, end: str
) -> None:
    """By the same claim: until it has ended no other action begins, whichever way the process went."""
    hooks, heirs = Hooks(), Hooks()
    hooks.gate = Gate()
    first, heir = (database.joins(by_hand(world, each)) for each in (hooks, heirs))
    saga_id = await failed(first, world)
    closing = asyncio.create_task(admin_of(first).execute_compensation(saga_id, "CLOSE_ALL", **WHO))
    await hooks.gate.wait_reached()
    if end == "stops":
        await soon(first.aclose())
        assert "cut off" in (await soon(closing)).message
    else:
        await database.make_due(saga_id)

    meanwhile = await admin_of(heir).execute_compensation(saga_id, "REVERT", **WHO)
    assert "CLOSE_ALL, ordered by ann, is under way" in meanwhile.message
    assert await soon(heir.run_due()) == 1
    hooks.gate.open()
    await soon(closing)

    assert heirs.calls == [saga_id]
    assert world.calls == ["flight", "hotel"]
    assert not await is_dirty(heir, saga_id)
    assert await signed(heir, saga_id) == [("failure:CLOSE_ALL", "ann", "ticket 12")]


async def test_an_action_whose_end_was_not_recorded_is_carried_out_again(database: Site, world: World) -> None:
    """The hook has returned, the process dies before the record: the next owner calls the same hook."""
    hooks, store = Hooks(), database.meddling_store()
    first, heir = database.joins(by_hand(world, hooks), store=store), database.joins(by_hand(world, hooks))
    saga_id = await failed(first, world)

    async def away_after_the_claim(real: Any, *args: Any) -> Any:
        if hooks.calls:
            raise ConnectionError("the process is gone")
        return await real(*args)

    store.around["advance"] = away_after_the_claim
    await soon(admin_of(first).execute_compensation(saga_id, "CLOSE_ALL", **WHO))
    meanwhile = await admin_of(heir).execute_compensation(saga_id, "REVERT", **WHO)
    assert "CLOSE_ALL, ordered by ann, is under way" in meanwhile.message
    await database.make_due(saga_id)
    assert await soon(heir.run_due()) == 1

    assert (hooks.calls, world.calls) == ([saga_id, saga_id], ["flight", "hotel"])
    assert not await is_dirty(heir, saga_id)


async def test_an_action_that_kills_its_processes_is_given_up(database: Site, world: World) -> None:
    """After as many losses as a saga may have: it is in doubt, and the saga is the operators' again."""
    hooks = Hooks()
    hooks.gate = Gate()
    definition = journey(world, on_failure="CLOSE_ALL", close_all=hooks.close_all, max_recoveries=1)
    victims = [database.joins(definition) for _ in range(2)]
    heir = database.joins(definition)
    world.plan("hotel", FULL)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(victims[0].start(**ORDER))]
    await until(lambda: len(hooks.calls) == 1)
    (saga_id,) = await admin_of(heir).dirty_sagas()
    await database.make_due(saga_id)
    tasks.append(asyncio.create_task(victims[1].run_due()))
    await until(lambda: len(hooks.calls) == 2)
    await database.make_due(saga_id)
    await soon(heir.run_due())
    hooks.gate.open()
    await soon(asyncio.gather(*tasks))

    assert len(hooks.calls) == 2
    assert await trail(heir, saga_id) == ["WAITING failure:CLOSE_ALL by engine", "IN_DOUBT failure:CLOSE_ALL by engine"]
    assert (await orchestrator_error(heir, saga_id)) == "PermanentError('full')"
    assert (await soon(admin_of(heir).execute_compensation(saga_id, "REVERT"))).success


async def orchestrator_error(orchestrator: SagaOrchestrator[TripSaga], saga_id: UUID) -> str | None:
    return (await orchestrator.get_snapshot(saga_id)).last_error


async def test_an_action_of_an_operator_that_fails_leaves_the_definitions_own_to_come(
    database: Site, world: World
) -> None:
    """What the engine was to try again it still tries, and no sooner; both failures stand in the history."""
    hooks, clock = Hooks(False, False), ManualClock()
    orchestrator = database.joins(acting(world, hooks, "CLOSE_ALL"), clock=clock)
    saga_id = await failed(orchestrator, world)

    result = await soon(admin_of(orchestrator).execute_compensation(saga_id, "CLOSE_ALL", **WHO))
    assert not result.success
    assert await trail(orchestrator, saga_id) == [
        *(f"{status} failure:CLOSE_ALL by engine" for status in ("WAITING", "ERROR")),
        *(f"{status} failure:CLOSE_ALL by ann" for status in ("WAITING", "ERROR")),
    ]
    assert (await orchestrator_error(orchestrator, saga_id)) == "PermanentError('full')"
    clock.advance(timedelta(hours=2))
    assert await soon(orchestrator.run_due()) == 1

    assert len(hooks.calls) == 3
    assert not await is_dirty(orchestrator, saga_id)


async def test_d1_a_definition_has_everything_closed_by_itself(database: Site, world: World) -> None:
    """Once, when it has failed with effects standing; no step is undone, and nothing stands afterwards."""
    hooks = Hooks()
    orchestrator = database.joins(acting(world, hooks, "CLOSE_ALL"))

    saga_id = await failed(orchestrator, world)
    await soon(orchestrator.run_due())

    assert (hooks.calls, world.calls) == ([saga_id], ["flight", "hotel"])
    assert not await is_dirty(orchestrator, saga_id)
    assert await signed(orchestrator, saga_id) == [("failure:CLOSE_ALL", "engine", "on_failure=CLOSE_ALL")]
    assert (await orchestrator.get_snapshot(saga_id)).deadline_at is None


async def test_d1_a_definition_has_somebody_told_by_itself(database: Site, world: World) -> None:
    """Once; the saga stays dirty until somebody has dealt with it, and may be told of again by hand."""
    hooks = Hooks()
    orchestrator = database.joins(acting(world, hooks, "ALERT_HUMAN"))

    saga_id = await failed(orchestrator, world)
    await soon(orchestrator.run_due())

    assert hooks.calls == [(saga_id, await admin_of(orchestrator).dirty_state(saga_id))]
    assert await is_dirty(orchestrator, saga_id)
    assert (await soon(admin_of(orchestrator).execute_compensation(saga_id, "REVERT"))).success


@pytest.mark.parametrize("names", [("flight",), ("flight", "hotel", "car")])
async def test_d1_nothing_is_called_where_nothing_stands(database: Site, world: World, names: tuple[str, ...]) -> None:
    """Neither for a saga that completes nor for one in which nothing has acted; nor for what an operator aborts."""
    hooks = Hooks()
    orchestrator = database.joins(acting(world, hooks, "CLOSE_ALL"))
    await soon(orchestrator.start(**ORDER))
    world.plan("flight", FULL)
    await soon(orchestrator.start(**ORDER))
    gate = world.gate(names[-1])
    running = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    saga_id = (await admin_of(orchestrator).list_sagas()).items[0].id
    await soon(admin_of(orchestrator).abort(saga_id))
    await soon(running)
    await soon(orchestrator.run_due())

    assert hooks.calls == []
    assert await is_dirty(orchestrator, saga_id)


async def test_d1_a_hook_that_is_cut_off_is_called_again_elsewhere(database: Site, world: World) -> None:
    """A process that stops in the middle leaves the action to whoever looks next."""
    hooks, heirs = Hooks(), Hooks()
    hooks.gate = Gate()
    first, heir = (database.joins(acting(world, each, "CLOSE_ALL")) for each in (hooks, heirs))
    world.plan("hotel", FULL)
    running = asyncio.create_task(first.start(**ORDER))
    await hooks.gate.wait_reached()
    await soon(first.aclose())
    saga_id = await soon(running)
    assert hooks.gate.cut.is_set()
    assert await is_dirty(heir, saga_id)

    await soon(heir.run_due())

    assert heirs.calls == [saga_id]
    assert not await is_dirty(heir, saga_id)


async def test_d1_a_hook_whose_process_dies_is_called_again_elsewhere(database: Site, world: World) -> None:
    """When its lease has run out, as of any saga; what the first one comes to then does no harm."""
    hooks, heirs = Hooks(), Hooks()
    hooks.gate = Gate()
    first, heir = (database.joins(acting(world, each, "CLOSE_ALL")) for each in (hooks, heirs))
    world.plan("hotel", FULL)
    running = asyncio.create_task(first.start(**ORDER))
    await hooks.gate.wait_reached()
    (saga_id,) = await admin_of(heir).dirty_sagas()
    assert await soon(heir.run_due()) == 0
    await database.make_due(saga_id)

    assert await soon(heir.run_due()) == 1
    hooks.gate.open()
    await soon(running)

    assert (hooks.calls, heirs.calls) == ([saga_id], [saga_id])
    assert [order for order, *_ in await signed(heir, saga_id)] == ["failure:CLOSE_ALL"]


@pytest.mark.parametrize("answer", [ConnectionError("away"), False])
async def test_d1_a_hook_that_does_not_come_off_is_called_again_later(
    database: Site, world: World, answer: Any
) -> None:
    """After a pause that grows with the time since the saga has failed; it is dirty until then."""
    hooks, clock = Hooks(answer), ManualClock()
    orchestrator = database.joins(acting(world, hooks, "CLOSE_ALL"), clock=clock)
    saga_id = await failed(orchestrator, world)
    assert await soon(orchestrator.run_due()) == 0
    assert await is_dirty(orchestrator, saga_id)

    clock.advance(timedelta(seconds=2))
    assert await soon(orchestrator.run_due()) == 1

    assert hooks.calls == [saga_id, saga_id]
    assert not await is_dirty(orchestrator, saga_id)


async def test_d1_an_operator_may_waive_while_the_hook_is_still_to_come(database: Site, world: World) -> None:
    """Of a part of what stands: the hook is called for the rest. Of all of it: there is nothing left to call it for."""
    hooks, clock = Hooks(False), ManualClock()
    orchestrator = database.joins(acting(world, hooks, "CLOSE_ALL"), clock=clock)
    world.plan("car", FULL)
    saga_id = await soon(orchestrator.start(**ORDER))
    admin = admin_of(orchestrator)

    await admin.waive_step(saga_id, "hotel", **WHO)
    clock.advance(timedelta(hours=2))
    hooks.answers.append(False)
    assert await soon(orchestrator.run_due()) == 1
    assert hooks.calls == [saga_id, saga_id]

    await admin.waive_step(saga_id, "flight", **WHO)
    clock.advance(timedelta(hours=4))
    assert await soon(orchestrator.run_due()) == 0
    assert hooks.calls == [saga_id, saga_id]
    assert not await is_dirty(orchestrator, saga_id)


async def test_d1_a_saga_that_fails_again_is_acted_upon_again(database: Site, world: World) -> None:
    """An operator who tries it again has taken it out of the queue; its next failure is another one."""
    hooks = Hooks()
    orchestrator = database.joins(acting(world, hooks, "ALERT_HUMAN"))
    saga_id = await failed(orchestrator, world)
    world.plan("hotel", FULL)

    await soon(admin_of(orchestrator).retry_step(saga_id, **WHO))

    await until(lambda: len(hooks.calls) == 2)
    assert world.calls == ["flight", "hotel", "hotel"]


async def test_d1_a_process_that_dies_as_the_saga_fails_loses_no_action(database: Site, world: World) -> None:
    """That it is to be called is written by the commit by which the saga fails, before anybody begins to."""
    hooks, heirs, store = Hooks(), Hooks(), database.meddling_store()

    async def away(real: Any, *args: Any) -> None:
        raise ConnectionError("the process is gone")

    store.around["advance"] = away
    first = database.joins(acting(world, hooks, "CLOSE_ALL"), store=store)
    saga_id = await failed(first, world)
    heir = database.joins(acting(world, heirs, "CLOSE_ALL"))

    assert await soon(heir.run_due()) == 1

    assert (hooks.calls, heirs.calls) == ([], [saga_id])
    assert not await is_dirty(heir, saga_id)


async def test_d1_a_wait_that_runs_out_is_a_failure_like_any(database: Site, world: World) -> None:
    """Whoever finds that its time is up calls the hook at once."""
    hooks, clock = Hooks(), ManualClock()
    builder = SagaBuilder(on_failure="ALERT_HUMAN", alert_human=hooks.alert_human)
    builder.add_step(step=Deed(world, "flight"), input_map=lambda ctx: Input(number=7), step_id="flight")
    builder.add_event("paid", timeout=timedelta(hours=1), step_id="paid")
    orchestrator = database.joins(builder.build(), clock=clock)
    saga_id = await soon(orchestrator.start(**ORDER))
    clock.advance(timedelta(hours=1))

    assert await soon(orchestrator.run_due()) == 1

    [(told, dirty)] = hooks.calls
    assert (told, dirty.failed_step, dirty.partial_state) == (saga_id, "paid", {"flight": {"ref": "flight-7"}})


@pytest.mark.usefixtures("renewed_often")
async def test_d1_the_lease_lasts_as_long_as_the_hook(on_sqlite: Site, world: World) -> None:
    """It is renewed like that of a step; nobody else calls the hook meanwhile."""
    hooks, others = Hooks(), Hooks()
    hooks.gate = Gate()
    first = on_sqlite.joins(acting(world, hooks, "CLOSE_ALL"))
    world.plan("hotel", FULL)
    running = asyncio.create_task(first.start(**ORDER))
    await hooks.gate.wait_reached()
    other = on_sqlite.joins(acting(world, others, "CLOSE_ALL"))
    (saga_id,) = await admin_of(other).dirty_sagas()
    lease = await on_sqlite.value("SELECT deadline_at FROM trip_saga")
    async with asyncio.timeout(20):
        while await on_sqlite.value("SELECT deadline_at FROM trip_saga") == lease:
            assert await other.run_due() == 0

    hooks.gate.open()
    await soon(running)

    assert (hooks.calls, others.calls) == ([saga_id], [])
