"""What fortressi/compensate could do, and this library does too, or something stronger in its place.

The marks are those of docs/reference/feature-matrix.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import String, update
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    InputContext,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinitionError,
    SagaFailedError,
    SagaOrchestrator,
    SagaStatus,
    StepContext,
)
from saga_orchestrator.storage.store import SagaStore
from saga_orchestrator.testing import ManualClock, MemoryStore
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    Asked,
    Base,
    Deed,
    OneWay,
    OrderSaga,
    Receipt,
    Scene,
    Undoable,
    admin_of,
    asked,
    fails,
    nothing,
    saga,
    scene_on,
)

HOUR = timedelta(hours=1)
NO = fails(PermanentError("no truck"))


async def test_f6_every_step_can_be_given_the_start_and_every_end_is_in_the_result(
    scene: Scene, ledger: list[str]
) -> None:
    """There may be several first and several last steps; all can be looked up, and gone through, in their order."""
    seen: list[Any] = []

    def begin(context: InputContext) -> Asked:
        seen.append(context.initial_data)
        return asked(context)

    builder = SagaBuilder()
    with builder.parallel():
        first = [builder.add_step(step=Undoable(i, ledger), input_map=begin, step_id=i) for i in ("a", "b")]
    with builder.parallel():
        for name in ("y", "z"):
            last = Undoable(name, ledger)
            builder.add_step(step=last, input_map=lambda a, b: Asked(order_id=a.number), depends_on=first, step_id=name)
    definition = builder.build()
    result = await scene.orchestrator(definition).run(**ORDER)
    assert seen == [{"order_id": "o-1"}] * 2
    assert {name: result.outputs[name] for name in "yz"} == {"y": {"number": "y-a-o-1"}, "z": {"number": "z-a-o-1"}}
    assert [each.step_id for each in definition.steps] == ["a", "b", "y", "z"]
    assert (definition.graph.roots, definition.graph.position["y"]) == (("a", "b"), 2)
    assert definition.step("z").step is definition.steps[3].step
    with pytest.raises(SagaDefinitionError, match="no step 'x'"):
        definition.step("x")


class Basket(Base):
    """What the steps of a saga share: a row of the application's own."""

    __tablename__ = "basket"

    number: Mapped[str] = mapped_column(String(20), primary_key=True)
    pieces: Mapped[int]


class Add(BaseStep[Asked, Receipt]):
    """A step that changes what all steps share, and tells what it has found."""

    transactional = True

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces

    async def execute(self, inp: Asked, ctx: StepContext) -> Receipt:
        return await self.add(self.pieces, inp, ctx)

    async def compensate(self, inp: Asked, out: Receipt, ctx: StepContext) -> None:
        await self.add(-self.pieces, inp, ctx)

    async def add(self, pieces: int, inp: Asked, ctx: StepContext) -> Receipt:
        basket = await ctx.session.get_one(Basket, inp.order_id)
        found = basket.pieces
        change = update(Basket).where(Basket.number == inp.order_id).values(pieces=Basket.pieces + pieces)
        await ctx.session.execute(change)
        return Receipt(number=str(found))


@pytest.mark.parametrize("truck", [True, False], ids=["completed", "undone"])
async def test_f9_what_the_steps_share_is_committed_with_each_of_them(
    scene: Scene, ledger: list[str], truck: bool
) -> None:
    """A step finds what earlier steps have left, in any process, and an undo takes just its own part away."""
    async with scene.sessions.begin() as session:
        session.add(Basket(number="o-1", pieces=1))
    builder = SagaBuilder()
    for pieces in (1, 2, 3):
        if pieces == 3:
            flaky = OneWay("wait", ledger, does=fails(ConnectionError("down"), ConnectionError("down")))
            retry = FixedRetry(3, SECOND)
            builder.add_step(step=flaky, input_map=asked, retry_policy=retry, compensation=None)
        builder.add_step(step=Add(pieces), input_map=asked, step_id=f"add {pieces}")
    builder.add_step(step=OneWay("ship", ledger, does=nothing if truck else NO), input_map=asked)
    definition = builder.build()
    saga_id = await scene.orchestrator(definition).start(**ORDER)
    assert await scene.sql("SELECT pieces FROM basket") == [(4,)]
    async with scene.sessions.begin() as session:
        (await session.get_one(Basket, "o-1")).pieces += 10
    for _ in range(2):
        scene.pass_time()
        await scene.orchestrator(definition).run_due()
    result = await scene.orchestrator(definition).result(saga_id)
    assert [result.outputs[f"add {pieces}"]["number"] for pieces in (1, 2, 3)] == ["1", "2", "14"]
    assert result.status is (SagaStatus.COMPLETED if truck else SagaStatus.COMPENSATED)
    assert await scene.sql("SELECT pieces FROM basket") == [(17 if truck else 11,)]


URLS = {"file": "sqlite_url", "server": "shared_postgres_url"}


@pytest.mark.parametrize("kind", ["memory", *URLS])
async def test_f13_a_saga_is_the_same_in_memory_in_a_file_and_on_a_server(
    request: pytest.FixtureRequest, ledger: list[str], kind: str
) -> None:
    """Another process, that has nothing but the store, finds it as it was left, and brings it to the same end."""
    clock = ManualClock()
    memory = MemoryStore(clock.now)
    flaky = Undoable("b", ledger, does=fails(ConnectionError("down"), ConnectionError("down")))
    definition = saga(Undoable("a", ledger), flaky, OneWay("c", ledger, does=NO), retry_policy=FixedRetry(3, SECOND))
    url = None if kind == "memory" else request.getfixturevalue(URLS[kind])
    if url is not None:
        async with scene_on(url):
            pass  # the tables are made

    @asynccontextmanager
    async def process() -> AsyncIterator[SagaOrchestrator[OrderSaga]]:
        engine = None if url is None else create_async_engine(url)
        store = memory if engine is None else SagaStore(OrderSaga, engine, clock)
        async with SagaOrchestrator[OrderSaga](store=store, clock=clock) as orchestrator:
            orchestrator.register(NAME, definition)
            yield orchestrator
        if engine is not None:
            await engine.dispose()

    began = clock.now()
    async with process() as first:
        saga_id = await first.start(**ORDER)
    for _ in range(2):
        clock.advance(HOUR)
        async with process() as other:
            assert await other.run_due() == 1
    async with process() as last:
        found = await SagaAdmin(engine=last.engine).get_saga(saga_id)
    assert (found.status, found.residue, found.last_error) == ("COMPENSATED", (), "PermanentError('no truck')")
    assert (found.created_at, found.finished_at, found.updated_at) == (began, began + 2 * HOUR, began + 2 * HOUR)
    done = [(each.phase, each.step_id) for each in found.step_history if each.status == "SUCCESS"]
    assert done == [("EXECUTE", "a"), ("EXECUTE", "b"), ("COMPENSATE", "b"), ("COMPENSATE", "a")]
    assert ledger == ["a", "b", "undo b", "undo a"]


async def test_f14_the_history_says_when_each_attempt_began_and_ended(scene: Scene, ledger: list[str]) -> None:
    """By the database's clock, in the order in which they ended, retries and undos included."""

    def takes(seconds: int, then: Deed = nothing) -> Deed:
        async def deed(ctx: StepContext) -> None:
            scene.pass_time(seconds * SECOND)
            await then(ctx)

        return deed

    down = fails(ConnectionError("down"), ConnectionError("down"))
    definition = saga(
        Undoable("a", ledger, does=takes(1), undoes=takes(5)),
        Undoable("b", ledger, does=takes(2, down), undoes=takes(4)),
        OneWay("c", ledger, does=takes(3, NO)),
        retry_policy=FixedRetry(3, SECOND),
    )
    orchestrator = scene.orchestrator(definition)
    assert scene.clock is not None
    began = scene.clock.now()
    saga_id = await orchestrator.start(**ORDER)
    for _ in range(2):
        scene.pass_time(SECOND)
        assert await orchestrator.run_due() == 1
    found = await admin_of(orchestrator).get_saga(saga_id)
    assert [
        (each.step_id, each.attempt, (each.started_at - began) / SECOND, (each.timestamp - began) / SECOND)
        for each in found.step_history
        if each.started_at is not None
    ] == [
        ("a", 1, 0, 1),
        ("b", 1, 1, 3),
        ("b", 2, 4, 6),
        ("b", 3, 7, 9),
        ("c", 1, 9, 12),
        ("b", 1, 12, 16),
        ("a", 1, 16, 21),
    ]
    assert found.steps == {"a": "Undone", "b": "Undone", "c": "Failed"}


class DeclinedError(Exception):
    """An error of the application's own."""


@pytest.mark.parametrize("undo", ["works", "fails"])
async def test_f16_the_error_of_the_action_survives_and_that_of_the_undo_stands_beside_it(
    scene: Scene, ledger: list[str], undo: str
) -> None:
    """The caller learns what turned the saga and what stands; the history has every error, by its class."""
    undoes = nothing if undo == "works" else fails(ConnectionError("bank away"))
    orchestrator = scene.orchestrator(
        saga(Undoable("a", ledger, undoes=undoes), OneWay("b", ledger, does=fails(DeclinedError("no funds"))))
    )
    with pytest.raises(SagaFailedError) as raised:
        await orchestrator.run(**ORDER)
    status, residue = ("COMPENSATED", ()) if undo == "works" else ("STUCK", ("a",))
    error = raised.value
    assert (error.status, error.error, error.residue) == (status, "DeclinedError('no funds')", residue)
    history = (await admin_of(orchestrator).get_saga(error.saga_id)).step_history
    errors = [(each.phase, each.step_id, each.error) for each in history if each.error]
    undone = [] if undo == "works" else [("COMPENSATE", "a", "ConnectionError('bank away')")]
    assert errors == [("EXECUTE", "b", "DeclinedError('no funds')"), *undone]
