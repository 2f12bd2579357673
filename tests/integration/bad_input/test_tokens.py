"""Tokens that are stale, foreign or repeated change nothing, and say so."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from saga_orchestrator import FixedRetry, SagaStatus
from tests.regressions.scene import ORDER, SECOND, OneWay, Scene, Undoable, admin_of, fails, saga

AGAIN = FixedRetry(max_attempts=9, delay=SECOND)


async def test_stale_foreign_and_repeated_tokens_are_answered_false(scene: Scene, ledger: list[str]) -> None:
    """Each wait has its own token, which is good once, and only for its own saga."""
    down = fails(*(ConnectionError("down") for _ in range(5)))
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger, does=down), retry_policy=AGAIN))
    mine = await orchestrator.start(**ORDER)
    theirs = await orchestrator.start(**{**ORDER, "aggregation_id": "o-2"})
    token, foreign = [(await orchestrator.get_snapshot(i)).step_execution_token for i in (mine, theirs)]
    assert token is not None
    assert foreign is not None
    before = await admin_of(orchestrator).get_saga(mine)
    assert not await orchestrator.notify(saga_id=mine, token=foreign, event={"n": 1})
    assert not await orchestrator.notify(saga_id=mine, token=uuid4(), event={"n": 1})
    assert await admin_of(orchestrator).get_saga(mine) == before
    assert await orchestrator.notify(saga_id=mine, token=token, event={"n": 1})
    after = await admin_of(orchestrator).get_saga(mine)
    assert not await orchestrator.notify(saga_id=mine, token=token, event={"n": 1})
    assert await admin_of(orchestrator).get_saga(mine) == after
    assert after.step_execution_token != token


async def test_the_token_of_a_saga_at_work_or_at_its_end_ends_no_wait(scene: Scene, ledger: list[str]) -> None:
    """Where nothing waits there is nothing to end; a token of a row that is at work is its owner's."""
    began, finish = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Any) -> None:
        began.set()
        await finish.wait()

    orchestrator = scene.orchestrator(saga(OneWay("a", ledger, does=slow)))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await began.wait()
    (found,) = (await admin_of(orchestrator).list_sagas()).items
    assert found.step_execution_token is not None
    assert not await orchestrator.notify(saga_id=found.id, token=found.step_execution_token)
    finish.set()
    await starting
    assert not await orchestrator.notify(saga_id=found.id, token=found.step_execution_token)
    assert (await orchestrator.get_snapshot(found.id)).status is SagaStatus.COMPLETED
    assert ledger == ["a"]


async def test_a_saga_that_waits_for_a_person_is_woken_by_no_token(scene: Scene, ledger: list[str]) -> None:
    """STUCK is ended by an order alone."""
    no = fails(ValueError("no"))
    orchestrator = scene.orchestrator(saga(Undoable("a", ledger, undoes=no), OneWay("b", ledger, does=no)))
    saga_id = await orchestrator.start(**ORDER)
    before = await orchestrator.get_snapshot(saga_id)
    assert before.status is SagaStatus.STUCK
    assert before.step_execution_token is not None
    assert not await orchestrator.notify(saga_id=saga_id, token=before.step_execution_token, event={})
    assert await orchestrator.get_snapshot(saga_id) == before
