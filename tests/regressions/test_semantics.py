"""What this library itself once got wrong about the meaning of sagas, each by its name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError

from saga_orchestrator import (
    ActiveSagaAlreadyExistsError,
    FixedRetry,
    InputContext,
    OutcomeUnknown,
    RetryAfter,
    RetryPolicy,
    SagaBuilder,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    SagaWorker,
    StepContext,
    StepKind,
)
from saga_orchestrator.definition.graph import Graph, Node
from saga_orchestrator.kernel.effects import Compensate, Execute, Verdict
from saga_orchestrator.kernel.events import Claimed, Compensated, CompensationRaised, Raised, Returned, Ticked
from saga_orchestrator.kernel.order_events import CompensateOrdered, SkipOrdered
from saga_orchestrator.kernel.projection import outstanding, status_of
from saga_orchestrator.kernel.state import State
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.storage.contract import Store
from saga_orchestrator.storage.rows import HistoryRow
from saga_orchestrator.testing import ManualClock, MemoryStore
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    Asked,
    Gate,
    MortalStore,
    OneWay,
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
)

AGAIN = FixedRetry(max_attempts=5, delay=SECOND)


def played(graph: Graph, *events: Any, state: State | None = None) -> State:
    """Return the state after some events, none of which is refused."""
    state, clock = state or State("saga"), ManualClock()
    for event in events:
        decision = decide(graph, state, event, now=clock.now())
        assert decision.verdict is Verdict.APPLIED, event
        state = decision.state
    return state


class Forgetful:
    """A store that loses its connection while it reads a history, as often as it is told to."""

    def __init__(self, store: Store) -> None:
        self._store, self.losses = store, 0

    async def history(self, saga_ids: Iterable[UUID]) -> dict[UUID, list[HistoryRow]]:
        if self.losses:
            self.losses -= 1
            raise OperationalError("SELECT", {}, ConnectionError("the database went away"))
        return await self._store.history(saga_ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_a_database_that_is_away_while_the_past_is_read_is_no_failure_of_the_step(
    timeless: Scene, ledger: list[str]
) -> None:
    """Reading what earlier steps returned may fail; that says nothing about the step that wanted it."""
    builder = SagaBuilder()
    first = builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    second = Undoable("charge", ledger, does=fails(ConnectionError("try later"), ConnectionError("try later")))
    builder.add_step(
        step=second, depends_on=first, input_map=lambda out: Asked(order_id=out.number), step_id="charge",
        retry_policy=FixedRetry(max_attempts=3, delay=SECOND),
    )  # fmt: skip
    definition = builder.build()
    saga_id = await timeless.orchestrator(definition).start(**ORDER)
    store = Forgetful(timeless.store())
    other = timeless.orchestrator(definition, store=store)
    store.losses = 1
    for _ in range(3):
        timeless.pass_time()
        await other.run_due()
    assert (await other.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert ledger == ["reserve", "charge"]


async def test_a_database_that_is_away_while_the_past_is_read_is_no_failure_of_the_undo(
    timeless: Scene, ledger: list[str]
) -> None:
    """The same on the way back: the saga is not STUCK because its database was away for a moment."""
    definition = saga(
        Undoable("reserve", ledger, undoes=fails(ConnectionError("try later"), ConnectionError("later"))),
        Undoable("charge", ledger, does=fails(ValueError("declined"))),
        compensation_retry=AGAIN,
    )
    saga_id = await timeless.orchestrator(definition).start(**ORDER)
    store = Forgetful(timeless.store())
    other = timeless.orchestrator(definition, store=store)
    store.losses = 1
    for _ in range(3):
        timeless.pass_time()
        await other.run_due()
    assert (await other.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED


async def test_a_retry_predicate_that_raises_means_no_retry(ledger: list[str]) -> None:
    """A predicate of the author's may stumble over an error that it did not expect; the step has failed anyway."""
    clock = ManualClock()
    picky = FixedRetry(max_attempts=3, delay=SECOND, retry_on=lambda error: error.code == 503)  # type: ignore[attr-defined]
    orchestrator: SagaOrchestrator[Any] = SagaOrchestrator(store=MemoryStore(clock.now), clock=clock)
    orchestrator.register(
        NAME,
        saga(
            Undoable("reserve", ledger),
            Undoable("charge", ledger, does=fails(ValueError("declined"))),
            retry_policy=picky,
        ),
    )
    saga_id = await orchestrator.start(**ORDER)
    result = await orchestrator.result(saga_id, timeout=timedelta(seconds=5))
    assert result.status is SagaStatus.COMPENSATED
    assert "declined" in (result.error or "")
    assert ledger == ["reserve", "undo reserve"]
    await orchestrator.aclose()


async def test_an_event_wakes_the_step_that_waits_and_no_later_one(timeless: Scene, ledger: list[str]) -> None:
    """`latest_event` is what woke this step: once it has succeeded, the next one does not see it."""
    seen: list[Any] = []

    def look(context: InputContext) -> Asked:
        seen.append(context.latest_event)
        return Asked()

    builder = SagaBuilder()
    flaky = Undoable("reserve", ledger, does=fails(ConnectionError("later"), ConnectionError("later")))
    builder.add_step(step=flaky, input_map=look, step_id="reserve", retry_policy=FixedRetry(3, SECOND))
    builder.add_step(step=OneWay("mail", ledger), input_map=look, step_id="mail")
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    for event in ({"n": 1}, {"n": 2}):
        token = (await orchestrator.get_snapshot(saga_id)).step_execution_token
        assert token is not None
        assert await orchestrator.notify(saga_id=saga_id, token=token, event=event)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert seen == [None, {"n": 1}, {"n": 2}, None]


async def test_a_deferred_saga_keeps_its_business_error(timeless: Scene, ledger: list[str]) -> None:
    """A process with other steps under the same version leaves a saga to others, and its error as it is."""
    ours = saga(
        Undoable("reserve", ledger, undoes=fails(ConnectionError("later"), ConnectionError("later"))),
        Undoable("charge", ledger, does=fails(ValueError("card declined"))),
        compensation_retry=AGAIN,
    )
    orchestrator = timeless.orchestrator(ours)
    saga_id = await orchestrator.start(**ORDER)
    stranger = timeless.orchestrator(saga(Undoable("reserve", ledger), Undoable("invoice", ledger)))
    timeless.pass_time()
    assert await stranger.run_due() == 0
    for _ in range(3):
        timeless.pass_time(timedelta(minutes=2))
        await orchestrator.run_due()
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert snapshot.status is SagaStatus.COMPENSATED
    assert "card declined" in (snapshot.last_error or "")


async def test_a_success_beside_a_failure_does_not_hide_its_error(timeless: Scene, ledger: list[str]) -> None:
    """A saga that is STUCK past its pivot says why, also when another branch ended well afterwards."""
    failed = asyncio.Event()

    async def declined(ctx: StepContext) -> None:
        failed.set()
        raise ValueError("no courier")

    async def after_the_failure(ctx: StepContext) -> None:
        await failed.wait()
        await asyncio.sleep(0)

    builder = SagaBuilder()
    builder.add_step(step=OneWay("charge", ledger), input_map=asked, step_id="charge", kind=StepKind.PIVOT)
    with builder.parallel():
        courier, mail = OneWay("courier", ledger, does=declined), OneWay("mail", ledger, does=after_the_failure)
        builder.add_step(step=courier, input_map=asked, step_id="courier", kind=StepKind.RETRIABLE)
        builder.add_step(step=mail, input_map=asked, step_id="mail", kind=StepKind.RETRIABLE)
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert snapshot.status is SagaStatus.STUCK
    assert "no courier" in (snapshot.last_error or "")


async def test_what_was_only_waived_is_not_called_compensated(timeless: Scene, ledger: list[str]) -> None:
    """COMPENSATED claims that something was undone; an operator's waiver alone undoes nothing."""
    orchestrator = timeless.orchestrator(
        saga(
            Undoable("reserve", ledger, undoes=fails(ValueError("the warehouse is gone"))),
            Undoable("charge", ledger, does=fails(ValueError("declined"))),
        )
    )
    saga_id = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.STUCK
    await admin_of(orchestrator).waive_step(saga_id, "reserve", actor="ada", reason="written off")
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.residue) == (SagaStatus.FAILED, ())


async def test_the_residue_of_a_saga_that_nobody_here_knows_is_not_called_empty(
    timeless: Scene, ledger: list[str]
) -> None:
    """A process that lacks the definition cannot tell what needs no undo, so it names all that may stand."""
    orchestrator = timeless.orchestrator(
        saga(
            Undoable("reserve", ledger, undoes=fails(ValueError("gone"))),
            Undoable("charge", ledger, does=fails(ValueError("declined"))),
        )
    )
    saga_id = await orchestrator.start(**ORDER)
    onlooker = timeless.orchestrator()
    assert (await onlooker.get_snapshot(saga_id)).residue == ("reserve",)


async def test_a_saga_brought_back_beside_a_new_one_is_refused_by_name(scene: Scene, ledger: list[str]) -> None:
    """An order that would make a second active saga of an aggregate names the one that is there."""
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger, does=fails(ValueError("no"), ValueError("no")))))
    failed = await orchestrator.start(**ORDER)
    waiting = saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), version=2, retry_policy=AGAIN)
    orchestrator.register(NAME, waiting)
    active = await orchestrator.start(**ORDER)
    with pytest.raises(ActiveSagaAlreadyExistsError) as refused:
        await admin_of(orchestrator).retry_step(failed)
    assert refused.value.saga_id == active
    assert (await orchestrator.get_snapshot(failed)).status is SagaStatus.FAILED


def test_resumed_undos_keep_the_reverse_order() -> None:
    """When several undos had failed, resuming them takes the later step first again."""
    steps = ("a", "b", "c")
    nodes = [Node(step_id=i, after=steps[:n][-1:], undoable=True) for n, i in enumerate(steps)]
    graph = Graph.of(*nodes)
    stuck = played(
        graph,
        Claimed(),
        Returned("a", 1),
        Returned("b", 1),
        Raised("c", 1, "no", retryable=False),
        CompensationRaised("b", 1, "no", retryable=False),
        CompensationRaised("a", 1, "no", retryable=False),
    )
    assert status_of(graph, stuck) is SagaStatus.STUCK
    resumed = played(graph, CompensateOrdered(), state=stuck)
    assert outstanding(resumed) == (Compensate("b", 2),)
    then = played(graph, Compensated("b", 2), state=resumed)
    assert outstanding(then) == (Compensate("a", 2),)
    assert status_of(graph, played(graph, Compensated("a", 2), state=then)) is SagaStatus.COMPENSATED


def test_an_order_that_frees_a_quarantined_saga_leaves_its_lost_attempts_in_doubt() -> None:
    """Whichever order ends a quarantine, what was in flight when the owner was lost may have acted."""
    again = FixedRetry(max_attempts=9, delay=SECOND)
    graph = Graph.of(Node(step_id="a", retry=again, nothing_to_undo=True), Node(step_id="b", nothing_to_undo=True),
                     max_recoveries=0)  # fmt: skip
    state = played(graph, Claimed(), Raised("a", 1, "later"), Claimed(crashed=True))
    assert status_of(graph, state) is SagaStatus.STUCK
    freed = played(graph, SkipOrdered(step_id="a"), state=state)
    assert outstanding(freed) == (Execute("b", 1, tainted=True),)


def test_a_pivot_that_was_lost_in_flight_forbids_the_way_back() -> None:
    """A pivot whose owner was lost may have acted: undoing what came before it could break a kept promise."""
    graph = Graph.of(
        Node(step_id="reserve", undoable=True),
        Node(step_id="charge", after=("reserve",), kind=StepKind.PIVOT),
        max_recoveries=0,
    )
    state = played(graph, Claimed(), Returned("reserve", 1), Claimed(crashed=True))
    assert status_of(graph, state) is SagaStatus.STUCK
    assert decide(graph, state, CompensateOrdered(), now=ManualClock().now()).verdict is Verdict.REFUSED


async def test_a_worker_does_not_spin_because_of_a_saga_that_it_cannot_run(timeless: Scene, ledger: list[str]) -> None:
    """A due saga of a name that is unknown here is no reason to look again at once, over and over."""
    definition = saga(OneWay("reserve", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN)
    orchestrator = timeless.orchestrator(definition)
    await orchestrator.start(**ORDER)
    timeless.pass_time()
    stranger = timeless.orchestrator()
    stranger.register("something else", saga(OneWay("reserve", ledger)))
    worker = SagaWorker(stranger, poll_interval=timedelta(seconds=7))
    assert await worker._pause() == 7


async def test_closing_in_the_middle_of_a_step_does_not_wait_for_its_lease(timeless: Scene, ledger: list[str]) -> None:
    """What was driven here is let go at once, so that `aclose` returns, although its leases would last for ever."""
    began = asyncio.Event()

    async def hang(ctx: StepContext) -> None:
        began.set()
        await forever(ctx)

    orchestrator = timeless.orchestrator(saga(OneWay("reserve", ledger, does=hang)), execution_lease=timedelta(days=9))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await began.wait()
    async with asyncio.timeout(20):
        await orchestrator.aclose()
        await starting


async def test_a_lease_handed_back_beside_a_commit_on_its_way_loses_no_result(scene: Scene, ledger: list[str]) -> None:
    """A step's result that waits for its transaction when the engine closes is written, not what was true before it."""
    gate, began, done = Gate(scene.store()), asyncio.Event(), asyncio.Event()

    async def act(ctx: StepContext) -> None:
        if ctx.aggregation_id == "second":
            began.set()
            await gate.stopped.wait()
            asyncio.get_running_loop().call_soon(done.set)

    definition = saga(Undoable("reserve", ledger, does=act), OneWay("charge", ledger, does=forever))
    closing = scene.orchestrator(definition, store=gate)
    gate.opened.set()
    starts = [asyncio.create_task(closing.start(**{**ORDER, "aggregation_id": "second"}))]
    await began.wait()
    gate.opened.clear()
    starts.append(asyncio.create_task(closing.start(**ORDER)))
    await done.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    ending = asyncio.create_task(closing.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
    gate.opened.set()
    async with asyncio.timeout(20):
        await ending
        second, first = await asyncio.gather(*starts)
    heir = scene.orchestrator(saga(Undoable("reserve", ledger), OneWay("charge", ledger)))
    assert await heir.run_due() == 2
    for saga_id in (first, second):
        snapshot = await admin_of(heir).get_saga(saga_id)
        assert snapshot.status is SagaStatus.COMPLETED, (snapshot.last_error, snapshot.step_history)
    assert ledger.count("reserve") == 2


async def test_a_saga_that_another_process_has_ended_is_let_go_at_the_next_beat(
    timeless: Scene, ledger: list[str]
) -> None:
    """Its owner need not believe in a lease to its end when the row says already that it is gone."""
    began = asyncio.Event()

    async def hang(ctx: StepContext) -> None:
        began.set()
        await forever(ctx)

    definition = saga(OneWay("reserve", ledger, does=hang))
    owner = timeless.orchestrator(definition, execution_lease=timedelta(days=9))
    starting = asyncio.create_task(owner.start(**ORDER))
    await began.wait()
    (saga_id,) = owner.engine.drivers
    await admin_of(timeless.orchestrator(definition)).abort(saga_id)
    await owner.engine._leases._renew(dict(owner.engine.drivers), asyncio.get_running_loop().time() + 9e5)
    async with asyncio.timeout(20):
        assert await starting == saga_id


async def test_an_undo_is_called_with_the_input_of_the_attempt_that_may_have_acted(
    timeless: Scene, ledger: list[str]
) -> None:
    """A later attempt, with another input, that surely did not act has nothing to be undone."""
    undone: list[str] = []

    class Charge(OneWay):
        async def compensate(self, inp: Asked, out: Receipt | None) -> None:
            undone.append(inp.order_id)

    builder = SagaBuilder()
    charge = Charge("charge", ledger, does=fails(OutcomeUnknown("no line"), ValueError("declined")))
    builder.add_step(
        step=charge,
        input_map=lambda context: Asked(order_id=(context.latest_event or {"card": "first card"})["card"]),
        retry_policy=FixedRetry(max_attempts=2, delay=SECOND),
    )
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    token = (await orchestrator.get_snapshot(saga_id)).step_execution_token
    assert token is not None
    assert await orchestrator.notify(saga_id=saga_id, token=token, event={"card": "second card"})
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert undone == ["first card"]


async def test_a_pause_that_is_no_timedelta_fails_the_step_and_not_the_engine(
    timeless: Scene, ledger: list[str]
) -> None:
    """A step that asks for a pause in seconds has made a mistake, which shows as its error at once."""

    async def later(ctx: StepContext) -> None:
        raise RetryAfter(5)  # type: ignore[arg-type]

    definition = saga(Undoable("reserve", ledger), OneWay("charge", ledger, does=later))
    orchestrator = timeless.orchestrator(definition)
    result = await orchestrator.result(await orchestrator.start(**ORDER), timeout=20 * SECOND)
    assert result.status is SagaStatus.COMPENSATED
    assert "timedelta" in (result.error or "")


@pytest.mark.parametrize("pause", [ZeroDivisionError(), 5, None], ids=["raises", "no timedelta", "gives up"])
async def test_a_retry_curve_that_stumbles_gives_up(timeless: Scene, ledger: list[str], pause: Any) -> None:
    """A policy of the author's that cannot say how long to wait ends the attempts; the saga goes back as ever."""

    @dataclass(frozen=True)
    class Curve(RetryPolicy):
        max_attempts: int = 9

        def _delay_for_attempt(self, attempt_number: int) -> timedelta:
            if attempt_number == 1:
                return timedelta(0)
            if isinstance(pause, Exception):
                raise pause
            return pause  # type: ignore[no-any-return]

    charge = Undoable("charge", ledger, does=fails(ConnectionError("down")))
    orchestrator = timeless.orchestrator(saga(Undoable("reserve", ledger), charge, retry_policy=Curve()))
    result = await orchestrator.result(await orchestrator.start(**ORDER), timeout=20 * SECOND)
    assert (result.status, result.error) == (SagaStatus.COMPENSATED, "ConnectionError('down')")
    assert [ctx.attempt for ctx in charge.seen] == [1, 2]


async def test_a_success_that_comes_after_its_undo_is_undone_again(
    timeless: Scene, ledger: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that will not be cut off, and acts after it has been given up and undone, is undone once more."""
    monkeypatch.setattr("saga_orchestrator.runtime.alarm.GRACE", timedelta(0))
    undone, act, acted = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deaf(ctx: StepContext) -> None:
        while not act.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await act.wait()
        asyncio.get_running_loop().call_soon(acted.set)

    async def undo_reserve(ctx: StepContext) -> None:
        undone.set()
        act.set()
        await acted.wait()
        for _ in range(9):
            await asyncio.sleep(0)

    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger, undoes=undo_reserve), input_map=asked, step_id="reserve")
    charge = UndoableBlindly("charge", ledger, does=deaf)
    builder.add_step(step=charge, input_map=asked, step_id="charge", timeout=timedelta(milliseconds=1))
    orchestrator = timeless.orchestrator(builder.build())
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    async with asyncio.timeout(20):
        while not undone.is_set():
            timeless.pass_time(SECOND)
            for driver in orchestrator.engine.drivers.values():
                driver.put(Ticked())
            await asyncio.sleep(0.001)
        saga_id = await starting
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert ledger[:3] == ["reserve", "undo charge without output", "charge"]
    assert sorted(ledger[3:]) == [
        "undo charge",
        "undo reserve",
    ]  # the second undo begins while that of the step before runs


async def test_a_look_at_a_saga_that_waits_leaves_its_token_good(scene: Scene, ledger: list[str]) -> None:
    """A wait has one token until it ends: a row that is made due by hand, and put back, has waited on."""
    down = fails(ConnectionError("down"), ConnectionError("down"))
    orchestrator = scene.orchestrator(saga(OneWay("reserve", ledger, does=down), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    before = await orchestrator.get_snapshot(saga_id)
    await scene.edit(saga_id, deadline_at="created_at")
    await orchestrator.run_due()
    after = await orchestrator.get_snapshot(saga_id)
    assert (after.deadline_at, after.awaiting) == (before.deadline_at, "retry")
    assert before.step_execution_token is not None
    assert await orchestrator.notify(saga_id=saga_id, token=before.step_execution_token)


async def test_sagas_are_listed_by_the_name_of_their_status_too(timeless: Scene, ledger: list[str]) -> None:
    """An operator who writes "STUCK" is not told that there are none; one who mistypes it is told that."""
    no = fails(ValueError("no"))
    orchestrator = timeless.orchestrator(saga(Undoable("a", ledger, undoes=no), OneWay("b", ledger, does=no)))
    saga_id = await orchestrator.start(**ORDER)
    admin = admin_of(orchestrator)
    for status in ("STUCK", ["STUCK", SagaStatus.FAILED], SagaStatus.STUCK):
        assert [found.id for found in (await admin.list_sagas(status=status)).items] == [saga_id]  # type: ignore[arg-type]
    with pytest.raises(SagaStateError, match=r"'STUKC'.*STUCK"):
        await admin.list_sagas(status="STUKC")  # type: ignore[arg-type]


async def test_a_quarantined_saga_goes_on_when_a_person_says_so(timeless: Scene, ledger: list[str]) -> None:
    """`retry_step` ends the quarantine; the attempt that killed its workers is made again, in doubt."""
    began, step = asyncio.Event(), Undoable("reserve", ledger)

    async def hang(ctx: StepContext) -> None:
        began.set()
        await forever(ctx)

    builder = SagaBuilder(max_recoveries=0)
    builder.add_step(step=Undoable("reserve", ledger, does=hang), input_map=asked, step_id="reserve")
    store = MortalStore(timeless.store(), survives=1, commits=False)
    doomed = timeless.orchestrator(builder.build(), store=store)
    async with mortal(lambda: doomed.start(**ORDER)):
        await began.wait()
    timeless.pass_time()
    mended = SagaBuilder(max_recoveries=0)
    mended.add_step(step=step, input_map=asked, step_id="reserve")
    heir = timeless.orchestrator(mended.build())
    assert await heir.run_due() == 0
    (found,) = (await admin_of(heir).list_sagas(status=SagaStatus.STUCK)).items
    await admin_of(heir).retry_step(found.id, actor="ada", reason="mended")
    assert (await heir.get_snapshot(found.id)).status is SagaStatus.COMPLETED
    assert [ctx.in_doubt for ctx in step.seen] == [True]
