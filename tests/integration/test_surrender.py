"""A saga that its process gave up because of the database: no crash is counted, whoever takes it next."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator import BaseStep, Event, SagaBuilder, SagaDefinition, SagaStatus, StepContext, WaitFor
from saga_orchestrator.storage.rows import SagaFilter
from tests.support.sagas import NAME, PATIENCE, Input, MeddlingStore, Output, Site, World, soon, trip, until

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {}, "aggregation_id": "order-1"}
SHORT = timedelta(seconds=1)
ANY = SagaFilter()


async def refuses(real: Any, *args: Any) -> Any:
    raise ConnectionError("the database is away")


async def answers_nothing(real: Any, *args: Any) -> Any:
    """The call arrives and is done, and its answer is lost."""
    await real(*args)
    raise ConnectionError("the database is away")


@pytest.fixture
def store(database: Site) -> MeddlingStore:
    """A store whose calls can be refused."""
    return database.meddling_store()


async def lose_by_a_commit(database: Site, world: World, store: MeddlingStore) -> Any:
    """Return an owner whose commits failed until it gave its saga up; the row still names it."""
    owner = database.joins(trip(world, max_recoveries=0), store=store, execution_lease=SHORT)
    gate = world.gate("hotel")
    starting = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    store.around |= {"write": refuses, "advance": refuses, "disown": refuses}
    gate.open()
    await soon(starting)
    return owner


async def lose_by_a_renewal(database: Site, world: World, store: MeddlingStore) -> Any:
    """Return an owner that could not renew its lease, and stopped its own step; the row still names it."""
    owner = database.joins(trip(world, max_recoveries=0), store=store, execution_lease=SHORT)
    gate = world.gate("hotel")
    store.around |= {"renew": refuses, "disown": refuses}
    starting = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_cut()
    await soon(starting)
    return owner


async def lose_by_a_claim(database: Site, world: World, store: MeddlingStore) -> Any:
    """Return an owner that has claimed a saga and never learnt it; the row names it."""
    owner = database.joins(trip(world, max_recoveries=0), store=store, execution_lease=SHORT)
    async with database.sessions() as session, session.begin():
        writer = database.joins(trip(World(), max_recoveries=0))
        await writer.start(session=session, **ORDER)
        await writer.aclose()
    store.around |= {"claim": answers_nothing, "disown": refuses}
    with pytest.raises(ConnectionError):
        await owner.run_due()
    return owner


LOSSES = [lose_by_a_commit, lose_by_a_renewal, lose_by_a_claim]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
async def test_the_same_process_takes_its_saga_again_and_counts_no_crash(
    database: Site, world: World, store: MeddlingStore, lose: Any
) -> None:
    """It knows that it never crashed; with `max_recoveries=0` one crash counted would make the saga STUCK."""
    owner = await lose(database, world, store)
    assert await database.value("SELECT lease_owner FROM trip_saga") == owner.engine.owner
    store.around = {"disown": refuses}
    saga_id = (await owner.engine.store.heads(ANY, 1, None))[0].id
    await database.make_due(saga_id)

    assert await soon(owner.run_due()) == 1

    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (await owner.get_snapshot(saga_id)).status is SagaStatus.RUNNING:  # a busy machine outlasts the lease
            await database.make_due(saga_id)
            await owner.run_due()
    assert (await owner.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
async def test_another_process_counts_no_crash_once_the_database_has_been_told(
    database: Site, world: World, store: MeddlingStore, lose: Any
) -> None:
    """The owner takes its name off the row as soon as the database answers; the lease stays as long as it was."""
    owner = await lose(database, world, store)
    lease = await database.value("SELECT deadline_at FROM trip_saga")
    store.around = {}
    await until_freed(database)
    assert await database.value("SELECT deadline_at FROM trip_saga") == lease
    saga_id = (await owner.engine.store.heads(ANY, 1, None))[0].id
    await database.make_due(saga_id)
    heir = database.joins(trip(world, max_recoveries=0))

    assert await soon(heir.run_due()) == 1

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


async def until_freed(database: Site) -> None:
    """Wait until the row names no owner."""
    async with asyncio.timeout(20):
        while await database.value("SELECT lease_owner FROM trip_saga") is not None:
            pass


async def test_a_defect_is_still_counted(database: Site, world: World, store: MeddlingStore) -> None:
    """A driver that fails by itself counts against its saga, also where its own process takes it again."""
    owner = database.joins(trip(world, max_recoveries=0), store=store)
    gate = world.gate("hotel")
    starting = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()

    async def breaks(real: Any, *args: Any) -> Any:
        raise KeyError("a defect")

    store.around["write"] = breaks
    gate.open()
    saga_id = await soon(starting)
    store.around = {}
    await database.make_due(saga_id)

    await soon(owner.run_due())

    assert (await owner.get_snapshot(saga_id)).status is SagaStatus.STUCK


# --- claims by other doors -------------------------------------------------------------------------------------------


async def test_a_saga_that_an_event_has_given_to_a_process_that_never_learnt_it_counts_no_crash(
    database: Site, world: World
) -> None:
    """The delivery is durable and sets a step going, and its answer is lost with the connection."""
    orchestrator = database.joins(asks(world), execution_lease=SHORT)
    saga_id = await soon(orchestrator.start(**ORDER))
    inbox: Any = orchestrator.engine.store.inbox
    real = inbox.deliver

    async def loses(*args: Any) -> Any:
        await real(*args)
        inbox.deliver = real
        raise ConnectionError("the database is away")

    inbox.deliver = loses
    with pytest.raises(ConnectionError):
        await soon(orchestrator.signal("paid", saga_id=saga_id, payload={}, event_id="1"))
    await until_freed(database)
    await database.make_due(saga_id)
    heir = database.joins(asks(world))

    await soon(heir.run_due())

    assert (await heir.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


class Ask(BaseStep[Input, Output]):
    """Waits for an event."""

    async def execute(self, inp: Input) -> Output | WaitFor:
        return WaitFor("paid")

    async def on_event(self, inp: Input, event: Event[Any], ctx: StepContext) -> Output:
        return Output()

    async def compensate(self, inp: Input, out: Output | None) -> None: ...


def asks(world: World) -> SagaDefinition:
    """Return a saga that waits for an event, and that one lost owner makes STUCK."""
    builder = SagaBuilder(max_recoveries=0)
    builder.add_step(step=Ask(), input_map=lambda ctx: Input(), step_id="ask")
    return builder.build()


async def test_what_is_given_up_is_told_at_once_and_all_together(
    database: Site, world: World, store: MeddlingStore
) -> None:
    """Others may claim the sagas as soon as their leases end, which may be soon."""
    told: list[set[UUID]] = []

    async def hears(real: Any, owner: str, tokens: Any) -> Any:
        told.append(set(tokens))
        return await real(owner, tokens)

    owner = database.joins(trip(world), store=store)
    store.around["disown"] = hears
    ids = {UUID(int=n) for n in range(3)}
    for saga_id in ids:
        owner.engine.surrenders.add(saga_id, UUID(int=9))
    await until(lambda: told)

    assert told == [ids]


async def test_a_saga_that_could_not_be_handed_back_is_told_of_when_the_engine_closes(
    database: Site, world: World, store: MeddlingStore
) -> None:
    """The process ends in good order, so the next owner counts no crash."""
    owner = database.joins(trip(world, max_recoveries=0), store=store, execution_lease=SHORT)
    gate = world.gate("hotel")
    starting = asyncio.create_task(owner.start(**ORDER))
    await gate.wait_reached()
    store.around |= {"write": refuses, "advance": refuses}
    await soon(owner.aclose())
    await asyncio.wait([starting])

    assert await database.value("SELECT lease_owner FROM trip_saga") is None
