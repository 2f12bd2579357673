"""What users of python-saga-orchestrator 0.7.3 rely on, as far as no other test here holds it.

What is different on purpose is declared in the page on coming from there, and tested as it is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from saga_orchestrator import (
    BaseStep,
    Event,
    FixedRetry,
    InputContext,
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    SignalResult,
    StepContext,
    TypeValidationError,
    WaitFor,
)
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    Asked,
    Deed,
    OrderSaga,
    Receipt,
    Scene,
    Undoable,
    admin_of,
    asked,
    fails,
    forever,
    saga,
    until_awaiting,
)

HOUR = timedelta(hours=1)
PATIENT = FixedRetry(max_attempts=3, delay=HOUR)
INLINE = FixedRetry(max_attempts=3, delay=timedelta(0))


class Pay(BaseStep[Asked, Receipt]):
    """Asks for a payment and waits an hour for it; its undo may wait as well."""

    def __init__(self, ledger: list[str], undo_wait: WaitFor | None = None) -> None:
        self.ledger, self.undo_wait = ledger, undo_wait

    async def execute(self, inp: Asked) -> Receipt | WaitFor:
        self.ledger.append("ask")
        return WaitFor("paid", timeout=HOUR)

    async def on_event(self, inp: Asked, event: Event[Receipt]) -> Receipt | None:
        self.ledger.append("late" if event.timed_out else "paid")
        return None if event.timed_out else event.payload

    async def compensate(self, inp: Asked, out: Receipt | None) -> WaitFor | None:
        self.ledger.append("undo ask")
        return self.undo_wait


def bill(*steps: BaseStep[Any, Any], **settings: Any) -> SagaDefinition:
    """Return a saga of these steps, each under the name of its class in small letters."""
    builder = SagaBuilder(**settings)
    for step in steps:
        step_id = getattr(step, "name", type(step).__name__.lower())
        builder.add_step(step=step, input_map=asked, step_id=step_id)
    return builder.build()


def fails_once() -> Deed:
    """Return a deed that raises on the first call only."""
    errors = [ValueError("no")]

    async def deed(ctx: StepContext) -> None:
        if errors:
            raise errors.pop()

    return deed


async def end_of(orchestrator: SagaOrchestrator[OrderSaga], saga_id: UUID) -> SagaStatus:
    """Return how the saga has ended, once it has."""
    async with asyncio.timeout(20):
        return (await orchestrator.result(saga_id)).status


async def status_of(orchestrator: SagaOrchestrator[OrderSaga], saga_id: UUID) -> SagaStatus:
    return (await orchestrator.get_snapshot(saga_id)).status


async def test_a_retry_without_a_delay_runs_inside_start(scene: Scene, ledger: list[str]) -> None:
    """The process that drives the saga makes it at once, so that nothing is left for `run_due`."""
    step = Undoable("charge", ledger, does=fails(ValueError("no"), ValueError("no")))
    orchestrator = scene.orchestrator(saga(step, retry_policy=INLINE))
    saga_id = await orchestrator.start(**ORDER)

    assert await status_of(orchestrator, saga_id) is SagaStatus.COMPLETED
    assert [ctx.attempt for ctx in step.seen] == [1, 2, 3]
    assert await orchestrator.run_due() == 0


async def test_a_retry_with_a_delay_waits_for_run_due(scene: Scene, ledger: list[str]) -> None:
    """Before its time `run_due` leaves it; then it makes the attempt, and counts the saga."""
    step = Undoable("charge", ledger, does=fails(ValueError("no"), ValueError("no")))
    orchestrator = scene.orchestrator(saga(step, retry_policy=PATIENT))
    saga_id = await orchestrator.start(**ORDER)

    for failures in (1, 2):
        waits = await orchestrator.get_snapshot(saga_id)
        assert (waits.status, waits.retry_counter) == (SagaStatus.SUSPENDED, failures)
        assert await orchestrator.run_due() == 0
        scene.pass_time(HOUR)
        assert await orchestrator.run_due() == 1

    ended = await orchestrator.get_snapshot(saga_id)
    assert (ended.status, ended.retry_counter, ended.deadline_at) == (SagaStatus.COMPLETED, 0, None)
    assert (ended.current_step_index, ended.last_error) == (1, None)


async def test_run_due_takes_those_whose_time_came_first(scene: Scene, ledger: list[str]) -> None:
    """Among equals the earliest deadline goes first, `limit` is kept, and a later time is left alone."""
    step = Undoable("charge", ledger, does=fails(*(ValueError("no") for _ in range(3))))
    orchestrator = scene.orchestrator(saga(step, retry_policy=PATIENT))
    for number in range(3):
        await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id=str(number))
        scene.pass_time(SECOND)
    del step.seen[:]
    scene.pass_time(HOUR - 2 * SECOND)

    assert [await orchestrator.run_due(limit=1) for _ in range(3)] == [1, 1, 0]
    assert [ctx.aggregation_id for ctx in step.seen] == ["0", "1"]


@pytest.mark.parametrize("name", ["retry_step", "skip_step", "compensate_step"])
async def test_a_step_in_flight_is_left_alone(scene: Scene, ledger: list[str], name: str) -> None:
    """An order that needs a saga at rest is refused while a step runs, and changes nothing."""
    reached = asyncio.Event()

    async def stays(ctx: StepContext) -> None:
        reached.set()
        await forever(ctx)

    step = Undoable("charge", ledger, does=stays)
    orchestrator = scene.orchestrator(saga(Undoable("reserve", ledger), step))
    running = asyncio.create_task(orchestrator.start(**ORDER))
    async with asyncio.timeout(20):
        await reached.wait()
    saga_id = step.seen[0].saga_id
    before = await admin_of(orchestrator).get_saga(saga_id)

    with pytest.raises(SagaStateError):
        await getattr(admin_of(orchestrator), name)(saga_id)

    assert (before.status, await admin_of(orchestrator).get_saga(saga_id)) == (SagaStatus.RUNNING, before)
    running.cancel()


async def test_where_no_step_has_acted_there_is_nothing_to_compensate(scene: Scene, ledger: list[str]) -> None:
    """The order is refused, and the saga goes on waiting for its retry."""
    orchestrator = scene.orchestrator(
        saga(Undoable("charge", ledger, does=fails(ValueError("no"))), retry_policy=PATIENT)
    )
    saga_id = await orchestrator.start(**ORDER)
    before = await admin_of(orchestrator).get_saga(saga_id)

    with pytest.raises(SagaStateError, match="nothing to undo"):
        await admin_of(orchestrator).compensate_step(saga_id)

    assert (before.status, await admin_of(orchestrator).get_saga(saga_id)) == (SagaStatus.SUSPENDED, before)


async def test_a_retry_by_order_gives_all_attempts_back(scene: Scene, ledger: list[str]) -> None:
    """The last attempt, made by order, is the first of as many as the policy allows."""
    twice = FixedRetry(max_attempts=2, delay=HOUR)
    step = Undoable("charge", ledger, does=fails(ValueError("no")))
    orchestrator = scene.orchestrator(saga(step, retry_policy=twice))
    saga_id = await orchestrator.start(**ORDER)

    await admin_of(orchestrator).retry_step(saga_id)

    waits = await orchestrator.get_snapshot(saga_id)
    assert (waits.status, waits.retry_counter, len(step.seen)) == (SagaStatus.SUSPENDED, 1, 2)


async def test_an_output_given_by_hand_is_an_output(scene: Scene, ledger: list[str]) -> None:
    """The next step is mapped from it; counter and error are gone, and the history calls it skipped."""
    first = Undoable("charge", ledger, does=fails(ValueError("no")))
    last = Undoable("ship", ledger)
    builder = SagaBuilder()
    ref = builder.add_step(step=first, input_map=asked, step_id="charge", retry_policy=PATIENT)
    builder.add_step(step=last, depends_on=ref, input_map=lambda out: {"order_id": out.number}, step_id="ship")
    orchestrator = scene.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)

    await admin_of(orchestrator).skip_step(saga_id, mock_output=Receipt(number="by hand"))

    found = await admin_of(orchestrator).get_saga(saga_id)
    assert (found.status, found.retry_counter, found.last_error) == (SagaStatus.COMPLETED, 0, None)
    outputs = {"charge": {"number": "by hand"}, "ship": {"number": "ship-by hand"}}
    assert found.context["step_outputs"] == outputs
    [skipped] = [entry for entry in found.step_history if entry.skipped]
    assert (skipped.step_id, skipped.output, skipped.error) == ("charge", outputs["charge"], None)


async def test_a_saga_that_was_undone_is_neither_tried_again_nor_skipped(scene: Scene, ledger: list[str]) -> None:
    """The history holds its undo, and the saga stays COMPENSATED with the error that turned it."""
    orchestrator = scene.orchestrator(
        saga(Undoable("reserve", ledger), Undoable("charge", ledger, does=fails(ValueError("declined"))))
    )
    saga_id = await orchestrator.start(**ORDER)
    admin = admin_of(orchestrator)
    undone = await admin.get_saga(saga_id)
    assert (undone.status, undone.last_error) == (SagaStatus.COMPENSATED, "ValueError('declined')")
    assert [entry.phase for entry in undone.step_history][-1] == "COMPENSATE"

    for order in (admin.retry_step, admin.skip_step, admin.compensate_step):
        with pytest.raises(SagaStateError):
            await order(saga_id)

    assert await admin.get_saga(saga_id) == undone


async def test_an_undo_that_failed_forbids_the_way_forward(scene: Scene, ledger: list[str]) -> None:
    """The saga is STUCK with both errors told apart, and `retry_step` does not turn it round again."""
    orchestrator = scene.orchestrator(
        saga(
            Undoable("reserve", ledger, undoes=fails(ValueError("no answer"))),
            Undoable("charge", ledger, does=fails(ValueError("declined"))),
        )
    )
    saga_id = await orchestrator.start(**ORDER)
    admin = admin_of(orchestrator)
    stuck = await admin.get_saga(saga_id)
    assert (stuck.status, stuck.residue) == (SagaStatus.STUCK, ("reserve",))
    failed = [(entry.phase, entry.error) for entry in stuck.step_history if entry.status == "ERROR"]
    assert failed == [("EXECUTE", "ValueError('declined')"), ("COMPENSATE", "ValueError('no answer')")]

    with pytest.raises(SagaStateError):
        await admin.retry_step(saga_id)

    assert await admin.get_saga(saga_id) == stuck


async def test_a_failure_that_was_left_standing_is_tried_again_by_order(scene: Scene, ledger: list[str]) -> None:
    """With `compensate_on_failure=False` a saga is FAILED where it stands, and `retry_step` goes on from there."""
    first, second = Undoable("reserve", ledger), Undoable("charge", ledger, does=fails_once())
    orchestrator = scene.orchestrator(bill(first, second, compensate_on_failure=False))
    saga_id = await orchestrator.start(**ORDER)
    assert await status_of(orchestrator, saga_id) is SagaStatus.FAILED

    await admin_of(orchestrator).retry_step(saga_id)

    assert await status_of(orchestrator, saga_id) is SagaStatus.COMPLETED
    assert ledger == ["reserve", "charge"]


async def test_a_wait_that_ran_out_is_asked_anew_by_order(scene: Scene, ledger: list[str]) -> None:
    """Left standing, the saga asks again, with a new time and a new token, and the event completes it."""
    orchestrator = scene.orchestrator(bill(Undoable("reserve", ledger), Pay(ledger), compensate_on_failure=False))
    saga_id = await orchestrator.start(**ORDER)
    first = await orchestrator.get_snapshot(saga_id)
    assert (first.status, first.awaiting) == (SagaStatus.SUSPENDED, "event:paid")
    scene.pass_time(HOUR)
    assert await orchestrator.run_due() == 0  # it has ended when it was looked at, and nothing was driven
    failed = await admin_of(orchestrator).get_saga(saga_id)
    assert (failed.status, failed.deadline_at, failed.waits) == (SagaStatus.FAILED, None, ())
    told = [(entry.phase, entry.status, entry.error) for entry in failed.step_history if entry.step_id == "pay"]
    assert told == [("EXECUTE", "WAITING", None), ("EXECUTE", "ERROR", failed.last_error)]
    assert failed.last_error == "no paid in time"

    await admin_of(orchestrator).retry_step(saga_id)
    again = await orchestrator.get_snapshot(saga_id)
    assert (again.status, again.awaiting, again.retry_counter) == (SagaStatus.SUSPENDED, "event:paid", 0)
    assert first.deadline_at is not None
    assert again.deadline_at == first.deadline_at + HOUR
    assert again.waits[0].token != first.waits[0].token

    assert await orchestrator.signal("paid", saga_id=saga_id, payload={"number": "p-1"}) is SignalResult.APPLIED
    assert await end_of(orchestrator, saga_id) is SagaStatus.COMPLETED
    assert ledger == ["reserve", "ask", "ask", "paid"]


async def test_a_wait_that_ran_out_is_undone_by_order(scene: Scene, ledger: list[str]) -> None:
    """Left standing, the saga is undone without an edit of its row, the step that asked as well."""
    orchestrator = scene.orchestrator(bill(Undoable("reserve", ledger), Pay(ledger), compensate_on_failure=False))
    saga_id = await orchestrator.start(**ORDER)
    scene.pass_time(HOUR)
    await orchestrator.run_due()
    assert await status_of(orchestrator, saga_id) is SagaStatus.FAILED

    await admin_of(orchestrator).compensate_step(saga_id)

    assert await status_of(orchestrator, saga_id) is SagaStatus.COMPENSATED
    assert ledger == ["reserve", "ask", "undo ask", "undo reserve"]


async def test_an_undo_that_waits_goes_on_by_run_due(scene: Scene, ledger: list[str]) -> None:
    """It is COMPENSATING meanwhile, its time stands in the row, and the rollback ends as any other."""
    wait = WaitFor("refunded", timeout=HOUR, on_timeout="resume")
    orchestrator = scene.orchestrator(
        bill(Pay(ledger, undo_wait=wait), Undoable("ship", ledger, does=fails(ValueError("no lorry"))))
    )
    saga_id = await orchestrator.start(**ORDER)
    assert await orchestrator.signal("paid", saga_id=saga_id, payload={"number": "p-1"}) is SignalResult.APPLIED
    await until_awaiting(orchestrator, saga_id, "event:refunded")
    waits = await orchestrator.get_snapshot(saga_id)
    assert waits.status is SagaStatus.COMPENSATING
    assert waits.deadline_at is not None

    scene.pass_time(HOUR)
    assert await orchestrator.run_due() == 1

    assert await status_of(orchestrator, saga_id) is SagaStatus.COMPENSATED
    assert ledger == ["ask", "paid", "undo ask", "late"]


async def test_the_event_of_a_failed_step_reaches_no_undo(timeless: Scene, ledger: list[str]) -> None:
    """The undo of an earlier step is called with its own input and output, and with nothing of the event."""
    seen: list[Any] = []

    class Kept(Undoable):
        async def compensate(self, inp: Asked, out: Receipt, ctx: Any) -> None:
            seen.append((inp, out))

    class Declined(Pay):
        async def on_event(self, inp: Asked, event: Event[Receipt]) -> Receipt | None:
            raise ValueError(event.payload.number)

    orchestrator = timeless.orchestrator(bill(Kept("reserve", ledger), Declined(ledger)))
    saga_id = await orchestrator.start(**ORDER)
    await orchestrator.signal("paid", saga_id=saga_id, payload={"number": "bad"})

    assert await end_of(orchestrator, saga_id) is SagaStatus.COMPENSATED
    assert seen == [(Asked(order_id="o-1"), Receipt(number="reserve-o-1"))]


async def test_an_abort_of_a_wait_is_told_in_the_history(scene: Scene, ledger: list[str]) -> None:
    """The saga is FAILED at once and says so in `last_error`; the order has a row, and the token is dead."""
    orchestrator = scene.orchestrator(bill(Pay(ledger)))
    saga_id = await orchestrator.start(**ORDER)
    admin = admin_of(orchestrator)
    before = await admin.get_saga(saga_id)

    await admin.abort(saga_id)

    after = await admin.get_saga(saga_id)
    assert (after.status, after.deadline_at, after.waits) == (SagaStatus.FAILED, None, ())
    assert after.last_error is not None
    assert "aborted" in after.last_error
    assert after.step_history[: len(before.step_history)] == before.step_history
    assert (after.step_history[-1].phase, after.step_history[-1].step_id) == ("ORDER", "abort")
    assert await orchestrator.notify(saga_id=saga_id, token=before.waits[0].token, event={"number": "p"}) is False


async def register_again(orchestrator: SagaOrchestrator[OrderSaga]) -> None:
    orchestrator.register(NAME, saga(Undoable("charge", [])))


async def start_an_unknown_one(orchestrator: SagaOrchestrator[OrderSaga]) -> None:
    await orchestrator.start(saga_name="unknown", initial_data={}, aggregation_id="1")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (register_again, NAME),
        (start_an_unknown_one, "unknown"),
    ],
)
async def test_a_name_is_registered_once_and_before_it_is_used(
    timeless: Scene, ledger: list[str], call: Callable[[SagaOrchestrator[OrderSaga]], Awaitable[None]], complaint: str
) -> None:
    """Both mistakes are a SagaDefinitionError that has the name in it."""
    orchestrator = timeless.orchestrator(saga(Undoable("reserve", ledger)))
    with pytest.raises(SagaDefinitionError, match=complaint):
        await call(orchestrator)


def test_a_map_is_checked_when_its_step_is_added(ledger: list[str]) -> None:
    """Its parameter must fit the output or context that it is given, and its return the input of the step."""

    def root(ctx: Receipt) -> Asked:
        raise NotImplementedError

    def dependent(out: Asked) -> Asked:
        raise NotImplementedError

    def returns(ctx: InputContext) -> Receipt:
        raise NotImplementedError

    builder = SagaBuilder()
    ref = builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    wrong: list[dict[str, Any]] = [
        {"input_map": root},
        {"input_map": dependent, "depends_on": ref},
        {"input_map": returns},
    ]
    for said in wrong:
        with pytest.raises(TypeValidationError):
            builder.add_step(step=Undoable("charge", ledger), **said)
    with pytest.raises(SagaDefinitionError):
        builder.add_step(step=Undoable("charge", ledger), input_map=123)  # type: ignore[arg-type]
    with pytest.raises(SagaDefinitionError, match="reserve"):
        builder.add_step(step=Undoable("charge", ledger), input_map=asked, step_id="reserve")
    assert [step.step_id for step in builder.build().steps] == ["reserve"]


def test_an_input_without_an_annotation_is_refused_with_the_class() -> None:
    """Also where the return is annotated, and the parameters of the class say both."""
    with pytest.raises(TypeValidationError, match="Half"):

        class Half(BaseStep[Asked, Receipt]):
            async def execute(self, inp) -> Receipt:  # type: ignore[no-untyped-def]
                raise NotImplementedError


async def test_a_model_as_initial_data_reads_back_as_its_values(scene: Scene, ledger: list[str]) -> None:
    """Maps and operators see plain values, which make an equal model; the outputs so far stand beside them."""

    class Basket(BaseModel):
        order_id: str
        lines: list[int]

    seen: list[InputContext] = []

    def look(ctx: InputContext) -> Asked:
        seen.append(ctx)
        return asked(ctx)

    builder = SagaBuilder()
    for name in ("reserve", "charge"):
        builder.add_step(step=Undoable(name, ledger), input_map=look, step_id=name)
    orchestrator = scene.orchestrator(builder.build())
    basket = Basket(order_id="b-1", lines=[1, 2])
    saga_id = await orchestrator.start(saga_name=NAME, initial_data=basket, aggregation_id="b-1")

    found = await admin_of(orchestrator).get_saga(saga_id)
    assert Basket.model_validate(found.context["initial_data"]) == basket
    assert [dict(ctx.step_outputs) for ctx in seen] == [{}, {"reserve": {"number": "reserve-b-1"}}]
    assert {ctx.saga_id for ctx in seen} == {saga_id}
    assert found.step_history[0].step_name == "Undoable"
