"""Steps that commit by themselves and are told of late: their sagas never say that nothing stands."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from saga_orchestrator import SagaAdmin, SagaStatus
from tests.support.booking import ORDER, saga
from tests.support.sagas import Gate, Site, World, soon


def commit_and(world: World, gate: Gate) -> Any:
    """Return what a step does that commits by itself, and then works on."""

    async def act() -> None:
        await world.contexts[-1].session.execute(text("COMMIT"))
        await gate()

    return act


def skip_on_sqlite(database: Site) -> None:
    if database.url.startswith("sqlite"):
        pytest.skip("a transaction that writes is alone on SQLite: no order moves the saga meanwhile")


async def settled_with(orchestrator: Any, saga_id: Any, residue: tuple[str, ...]) -> Any:
    """Return the saga once it has this residue."""
    async with asyncio.timeout(20):
        while True:
            found = await orchestrator.get_snapshot(saga_id)
            if found.residue == residue:
                return found
            await asyncio.sleep(0.02)


async def test_a_step_that_an_abort_has_cut_off_after_its_own_commit_is_residue(
    database: Site, world: World, counter: Any
) -> None:
    """The abort takes the attempt for clean, since it is one transaction; the step tells otherwise."""
    skip_on_sqlite(database)
    orchestrator, gate = database.joins(saga(world)), Gate()
    world.plan("book", commit_and(world, gate))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers

    await soon(SagaAdmin(orchestrator).abort(saga_id))
    await soon(starting)

    found = await settled_with(orchestrator, saga_id, ("book",))
    assert (found.status, await counter()) == (SagaStatus.FAILED, 1)
    history = (await SagaAdmin(orchestrator).get_saga(saga_id)).step_history
    assert [row.status for row in history if row.step_id == "book"][-1] == "IN_DOUBT"


async def test_a_step_whose_lease_was_lost_after_its_own_commit_is_not_done_by_the_next_owner(
    database: Site, world: World, counter: Any
) -> None:
    """The next owner makes the attempt again, as nothing is known of it. Its transaction does not come off."""
    skip_on_sqlite(database)
    first, second = database.joins(saga(world)), database.joins(saga(world))
    gates = Gate(), Gate()
    world.plan("book", commit_and(world, gates[0]), gates[1])
    starting = asyncio.create_task(first.start(**ORDER))
    await gates[0].wait_reached()
    (saga_id,) = first.engine.drivers
    await database.make_due(saga_id)
    running = asyncio.create_task(second.run_due())
    await gates[1].wait_reached()

    gates[0].open()
    await settled_with(first, saga_id, ("book",))
    gates[1].open()
    await soon(running)
    await soon(starting)

    found = await first.get_snapshot(saga_id)
    assert (found.status, found.residue, await counter()) == (SagaStatus.STUCK, ("book",), 1)
    assert world.calls == ["book", "book"]


async def test_a_doubt_is_written_when_the_database_is_back(
    database: Site, world: World, counter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An abort has moved the saga, and the first tries to tell of the doubt fail."""
    skip_on_sqlite(database)
    orchestrator, gate, refused = database.joins(saga(world)), Gate(), list[None]()
    store: Any = orchestrator.engine.store
    real = store.advance

    async def refuse(*arguments: Any) -> Any:
        if len(refused) < 2:
            refused.append(None)
            raise ConnectionError("away")
        return await real(*arguments)

    world.plan("book", commit_and(world, gate))
    starting = asyncio.create_task(orchestrator.start(**ORDER))
    await gate.wait_reached()
    (saga_id,) = orchestrator.engine.drivers
    other = database.joins(saga(world))
    monkeypatch.setattr(store, "advance", refuse)
    await soon(SagaAdmin(other).abort(saga_id))
    gate.open()

    found = await settled_with(orchestrator, saga_id, ("book",))
    await soon(starting)
    assert (found.status, len(refused)) == (SagaStatus.FAILED, 2)
