"""Rows that were written by a newer library, or edited by hand."""

from __future__ import annotations

import pytest

from saga_orchestrator import FixedRetry, SagaStateError, SagaStatus
from tests.regressions.scene import NAME, ORDER, SECOND, OneWay, Scene, Undoable, admin_of, fails, saga

AGAIN = FixedRetry(max_attempts=9, delay=SECOND)
NONSENSE = {
    "state is not an object": {"state": "'[]'"},
    "state is empty": {"state": "'{}'"},
    "state has no version": {"state": """'{"c": "F", "n": 1, "s": {}}'"""},
    "an unknown status": {"state": """'{"v": 1, "c": "F", "n": 1, "s": {"a": "?"}}'"""},
    "an unknown step": {"state": """'{"v": 1, "c": "F", "n": 1, "d": "z", "s": {}}'"""},
    "an unknown course": {"state": """'{"v": 1, "c": "Z", "n": 1, "s": {}}'"""},
    "a negative count": {"state": """'{"v": 1, "c": "F", "n": -1, "s": {}}'"""},
    "a step that came before its turn": {"state": """'{"v": 1, "c": "F", "n": 1, "d": "b", "s": {}}'"""},
    "an undo on the way forward": {"state": """'{"v": 1, "c": "F", "n": 1, "s": {"a": "N"}}'"""},
    "an undo before its turn": {"state": """'{"v": 1, "c": "B", "n": 1, "d": "b", "s": {"a": "N"}}'"""},
    "context has no initial data": {"context": "'{}'"},
    "context is not an object": {"context": "'7'"},
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_a_row_edited_into_nonsense_is_quarantined_and_the_others_go_on(
    scene: Scene, ledger: list[str], what: str
) -> None:
    """It waits for a person, says what is wrong with it, and can still be looked at; nothing is guessed from it."""
    waits = {"retry_policy": AGAIN}
    down = fails(ConnectionError("down"))
    first = scene.orchestrator(saga(Undoable("a", ledger, does=down), OneWay("b", ledger), **waits))
    edited = await first.start(saga_name=NAME, initial_data={}, aggregation_id="edited", priority=9)
    healthy = await first.start(saga_name=NAME, initial_data={}, aggregation_id="healthy")
    await scene.edit(edited, **NONSENSE[what])
    other = scene.orchestrator(saga(Undoable("a", ledger), OneWay("b", ledger), **waits))
    scene.pass_time()
    assert await other.run_due() == 1
    assert (await other.get_snapshot(healthy)).status is SagaStatus.COMPLETED
    found = await other.get_snapshot(edited)
    assert (found.status, found.awaiting, found.deadline_at) == (SagaStatus.STUCK, "operator", None)
    assert "quarantined" in (found.last_error or "")
    assert ledger == ["a", "b"]
    assert await other.run_due() == 0
    admin = admin_of(other)
    assert edited in [item.id for item in (await admin.list_sagas(status=SagaStatus.STUCK)).items]
    for order in (admin.retry_step, admin.skip_step, admin.compensate_step, admin.cancel, admin.abort):
        with pytest.raises(SagaStateError, match=str(edited)):
            await order(edited)


async def test_a_row_that_was_mended_goes_on(scene: Scene, ledger: list[str]) -> None:
    """Quarantine changes nothing of the row's own state: once it is put right, and made due, it is taken again."""
    waits = {"retry_policy": AGAIN}
    first = scene.orchestrator(saga(OneWay("a", ledger, does=fails(ConnectionError("down"))), **waits))
    saga_id = await first.start(**ORDER)
    ((good,),) = await scene.sql("SELECT CAST(state AS TEXT) FROM order_saga")
    await scene.edit(saga_id, state="'{}'")
    other = scene.orchestrator(saga(OneWay("a", ledger), **waits))
    scene.pass_time()
    await other.run_due()
    assert (await other.get_snapshot(saga_id)).status is SagaStatus.STUCK
    await scene.edit(saga_id, state=f"'{good}'", deadline_at="created_at")
    assert await other.run_due() == 1
    snapshot = await other.get_snapshot(saga_id)
    assert (snapshot.status, snapshot.last_error) == (SagaStatus.COMPLETED, None)


async def test_a_state_document_of_a_newer_library_is_deferred_and_not_failed(scene: Scene, ledger: list[str]) -> None:
    """During a rolling deployment the older process leaves the row to the newer ones, as it is."""
    waits = {"retry_policy": AGAIN}
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger, does=fails(ConnectionError("down"))), **waits))
    saga_id = await orchestrator.start(**ORDER)
    await scene.edit(saga_id, state="""'{"v": 99, "of": "the future"}'""")
    before = await orchestrator.get_snapshot(saga_id)
    scene.pass_time()
    assert await orchestrator.run_due() == 0
    after = await orchestrator.get_snapshot(saga_id)
    assert (after.status, after.last_error) == (before.status, before.last_error)
    assert before.deadline_at is not None
    assert after.deadline_at is not None
    assert after.deadline_at > before.deadline_at
    with pytest.raises(SagaStateError, match=f"{saga_id}.*version 99"):
        await admin_of(orchestrator).abort(saga_id)


async def test_an_order_for_a_saga_of_an_unknown_definition_says_what_to_register(
    timeless: Scene, ledger: list[str]
) -> None:
    """A process that does not know the steps cannot judge an order about them."""
    first = timeless.orchestrator(saga(OneWay("a", ledger, does=fails(ConnectionError("down"))), retry_policy=AGAIN))
    saga_id = await first.start(**ORDER)
    stranger = timeless.orchestrator()
    for order in (admin_of(stranger).cancel, admin_of(stranger).retry_step, admin_of(stranger).skip_step):
        with pytest.raises(SagaStateError, match=f"{saga_id}.*{NAME}"):
            await order(saga_id)
