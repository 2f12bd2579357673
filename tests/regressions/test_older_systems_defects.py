"""What dir_core, minos saga and fortressi/compensate got wrong, as far as this library does the same work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from saga_orchestrator import FixedRetry, SagaBuilder, SagaStateError, SagaStatus
from saga_orchestrator.errors import SagaSchemaError
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    OneWay,
    Scene,
    Undoable,
    admin_of,
    asked,
    fails,
    nothing,
    saga,
)

AGAIN = FixedRetry(max_attempts=5, delay=SECOND)
NO = fails(ValueError("declined"))


async def test_dir_core_concurrent_callers_of_one_idempotency_key_act_once(scene: Scene, ledger: list[str]) -> None:
    """Five requests with one key, in two processes, are one saga; so is a sixth, long after it has ended."""
    definition = saga(OneWay("charge", ledger))
    processes = [scene.orchestrator(definition), scene.orchestrator(definition)]
    again = {**ORDER, "idempotency_key": "request-7"}
    ids = await asyncio.gather(*(processes[n % 2].start(**again) for n in range(5)))
    assert len(set(ids)) == 1
    await processes[0].result(ids[0], timeout=20 * SECOND)
    assert await processes[1].start(**again) == ids[0]
    assert ledger == ["charge"]


async def test_dir_core_a_later_failure_does_not_overwrite_an_unresolved_one(
    timeless: Scene, ledger: list[str]
) -> None:
    """The error that turned the saga is still the one to be seen after its undo has failed too."""
    definition = saga(
        Undoable("reserve", ledger, undoes=fails(ConnectionError("warehouse away"))),
        Undoable("charge", ledger, does=NO),
    )
    orchestrator = timeless.orchestrator(definition)
    saga_id = await orchestrator.start(**ORDER)
    found = await admin_of(orchestrator).get_saga(saga_id)
    assert found.last_error == "ValueError('declined')"
    assert [e.error for e in found.step_history if e.phase == "COMPENSATE"] == ["ConnectionError('warehouse away')"]


ORDERS = ("retry_step", "skip_step", "compensate_step", "cancel", "abort", "waive_step")
ALLOWED = {
    "COMPLETED": set(),
    "COMPENSATED": set(),
    "FAILED": {"retry_step"},
    "SUSPENDED": {"retry_step", "skip_step", "compensate_step", "cancel", "abort"},
    "STUCK": {"compensate_step", "abort", "waive_step"},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("status", ALLOWED)
async def test_dir_core_every_order_checks_the_state_that_it_is_given_in(
    timeless: Scene, ledger: list[str], status: str, order: str
) -> None:
    """An order at the wrong moment is refused, names the saga and its status, and leaves both alone."""
    down = fails(ConnectionError("down"))
    definitions = {
        "COMPLETED": saga(Undoable("a", ledger)),
        "COMPENSATED": saga(Undoable("a", ledger), OneWay("b", ledger, does=NO)),
        "FAILED": saga(Undoable("a", ledger, does=NO)),
        "SUSPENDED": saga(Undoable("a", ledger), Undoable("b", ledger, does=down), retry_policy=AGAIN),
        "STUCK": saga(Undoable("a", ledger, undoes=down), OneWay("b", ledger, does=NO)),
    }
    orchestrator = timeless.orchestrator(definitions[status])
    admin = admin_of(orchestrator)
    saga_id = await orchestrator.start(**ORDER)
    before = await admin.get_saga(saga_id)
    assert before.status.value == status
    more: dict[str, Any] = {"skip_step": {"mock_output": {"number": "1"}}, "waive_step": {"step_id": "a"}}.get(
        order, {}
    )
    giving = getattr(admin, order)(saga_id, **more, actor="ada", reason="to see")
    if order in ALLOWED[status]:
        await giving
        assert await admin.get_saga(saga_id) != before
    else:
        with pytest.raises(SagaStateError, match=f"{saga_id}.*{status}"):
            await giving
        assert await admin.get_saga(saga_id) == before


async def test_minos_a_repeated_reply_is_taken_once(scene: Scene, ledger: list[str]) -> None:
    """The token of a wait is good for one notification, however often and from wherever it is sent."""
    orchestrator = scene.orchestrator(
        saga(
            OneWay("reserve", ledger, does=fails(ConnectionError("down"), ConnectionError("down"))), retry_policy=AGAIN
        )
    )
    other = scene.orchestrator(saga(OneWay("reserve", ledger), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    token = (await orchestrator.get_snapshot(saga_id)).step_execution_token
    assert token is not None
    sent = await asyncio.gather(
        *(p.notify(saga_id=saga_id, token=token) for p in (orchestrator, other) for _ in range(3))
    )
    assert sorted(sent) == [False] * 5 + [True]
    assert [e.step_id for e in (await admin_of(other).get_saga(saga_id)).step_history if e.phase == "ORDER"] == [
        "notify"
    ]


async def test_compensate_a_store_that_refuses_is_not_only_printed(timeless: Scene, ledger: list[str]) -> None:
    """A saga that could not be made durable was not started, and the caller learns it."""
    orchestrator = timeless.orchestrator(saga(OneWay("reserve", ledger)))
    await timeless.sql("DROP TABLE order_saga")
    with pytest.raises(SagaSchemaError, match="order_saga is missing"):
        await orchestrator.start(**ORDER)
    assert ledger == []


async def test_compensate_a_failing_undo_does_not_stop_the_others(timeless: Scene, ledger: list[str]) -> None:
    """The rest of the rollback goes on, unless the step says that it must stop."""
    for policy, undone in (("continue", ["undo c", "undo a"]), ("stop", ["undo c"])):
        ledger.clear()
        builder = SagaBuilder()
        builder.add_step(step=Undoable("a", ledger), input_map=asked, step_id="a")
        broken = Undoable("b", ledger, undoes=fails(ConnectionError("down")))
        builder.add_step(step=broken, input_map=asked, step_id="b", on_undo_failure=policy)  # type: ignore[call-overload]
        builder.add_step(step=Undoable("c", ledger), input_map=asked, step_id="c")
        builder.add_step(step=OneWay("d", ledger, does=NO), input_map=asked, step_id="d")
        orchestrator = timeless.orchestrator(builder.build())
        saga_id = await orchestrator.start(saga_name=NAME, initial_data={}, aggregation_id=policy)
        snapshot = await orchestrator.get_snapshot(saga_id)
        assert snapshot.status is SagaStatus.STUCK
        assert ledger == ["a", "b", "c", *undone]
        assert snapshot.residue == (("b",) if policy == "continue" else ("a", "b"))


async def test_compensate_a_second_rollback_undoes_nothing_twice(timeless: Scene, ledger: list[str]) -> None:
    """Resuming a rollback that got stuck tries only the undo that had failed."""
    causes = [ConnectionError("down")]

    async def undo(ctx: Any) -> None:
        if causes:
            raise causes.pop()

    definition = saga(Undoable("a", ledger), Undoable("b", ledger, undoes=undo), OneWay("c", ledger, does=NO))
    orchestrator = timeless.orchestrator(definition)
    saga_id = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.STUCK
    await admin_of(orchestrator).compensate_step(saga_id)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    with pytest.raises(SagaStateError, match="COMPENSATED"):
        await admin_of(orchestrator).compensate_step(saga_id)
    assert ledger == ["a", "b", "undo a", "undo b"]


async def test_compensate_a_failed_saga_can_go_forward_again(timeless: Scene, ledger: list[str]) -> None:
    """Whoever left the effects standing may mend the cause and go on from the step that failed."""
    builder = SagaBuilder(compensate_on_failure=False)
    builder.add_step(step=Undoable("a", ledger), input_map=asked, step_id="a")
    broken = Undoable("b", ledger, does=NO)
    builder.add_step(step=broken, input_map=asked, step_id="b")
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.FAILED
    broken.does = nothing
    await admin_of(orchestrator).retry_step(saga_id, actor="ada", reason="mended")
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED
    assert ledger == ["a", "b"]


async def test_compensate_parallel_steps_run_side_by_side(timeless: Scene, ledger: list[str]) -> None:
    """Two branches that wait for each other both end, on the way forward and on the way back."""
    forward, backward = asyncio.Barrier(2), asyncio.Barrier(2)

    async def meet(ctx: Any) -> None:
        await forward.wait()

    async def meet_again(ctx: Any) -> None:
        await backward.wait()

    builder = SagaBuilder()
    with builder.parallel():
        for name in ("a", "b"):
            step = Undoable(name, ledger, does=meet, undoes=meet_again)
            builder.add_step(step=step, input_map=asked, step_id=name)
    builder.add_step(step=OneWay("c", ledger, does=NO), input_map=asked, step_id="c")
    orchestrator = timeless.orchestrator(builder.build())
    async with asyncio.timeout(20):
        saga_id = await orchestrator.start(**ORDER)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPENSATED
    assert sorted(ledger) == ["a", "b", "undo a", "undo b"]
