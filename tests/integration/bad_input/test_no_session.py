"""`ctx.session` where there is none: a step that is not transactional, a probe, a store of a test."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable

import pytest

from saga_orchestrator import (
    SagaBuilder,
    SagaDefinitionError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    StepContext,
    step,
)
from saga_orchestrator.runtime.no_session import NoSession
from saga_orchestrator.testing import MemoryStore
from tests.regressions.scene import NAME, ORDER, Asked, OneWay, OrderSaga, Receipt, Scene, saga

SET_IT = r"Step 'a' uses ctx\.session, and is not transactional\. Set transactional = True"


async def _executes(ctx: StepContext) -> None:
    await ctx.session.execute("SELECT 1")


async def _adds(ctx: StepContext) -> None:
    ctx.session.add(object())


async def _enters(ctx: StepContext) -> None:
    async with ctx.session as session:
        session.add(object())


async def _begins(ctx: StepContext) -> None:
    async with ctx.session.begin():
        ctx.session.add(object())


async def _enters_without_waiting(ctx: StepContext) -> None:
    with ctx.session:
        pass


USES = [_executes, _adds, _enters, _begins, _enters_without_waiting]


@pytest.mark.parametrize("use", USES)
async def test_a_step_that_is_not_transactional_is_told_so(
    timeless: Scene, ledger: list[str], use: Callable[[StepContext], Awaitable[None]]
) -> None:
    """It was an AttributeError of None."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger, use)))
    result = await orchestrator.run(**ORDER, raise_on_error=False)
    assert result.status is SagaStatus.FAILED
    with pytest.raises(SagaStateError, match=SET_IT):
        raise SagaStateError(result.error)


async def test_it_starts_no_other_saga_outside_of_a_transaction(timeless: Scene, ledger: list[str]) -> None:
    """With None for a session, the other saga was started at once, whatever became of the step."""

    async def starts(ctx: StepContext) -> None:
        await orchestrator.start(**ORDER | {"aggregation_id": "other"}, session=ctx.session)

    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger, starts)))
    result = await orchestrator.run(**ORDER, raise_on_error=False)
    assert "session= is NoSession; give an AsyncSession" in str(result.error)
    assert ledger == []


async def test_a_function_is_told_so(timeless: Scene) -> None:
    """It cannot be transactional."""

    @step
    async def a(number: int, ctx: StepContext) -> Receipt:
        await ctx.session.flush()
        return Receipt(number="1")

    builder = SagaBuilder()
    builder.add_step(step=a, input_map=lambda ctx: {"number": 1}, step_id="a")
    result = await timeless.orchestrator(builder.build()).run(**ORDER, raise_on_error=False)
    assert "a function cannot be a transactional step" in str(result.error)


class TestWhatItIs:
    def test_it_is_false(self) -> None:
        """So that `ctx.session or a_session_of_my_own` goes on working."""
        assert not NoSession("a", is_transactional=False)

    def test_it_can_be_shown_and_copied(self) -> None:
        """A context is logged, and copied by a test."""
        absent = NoSession("a", is_transactional=False)
        assert repr(copy.deepcopy(absent)) == repr(absent) == "<no session: step 'a' has none>"
        assert not hasattr(absent, "__wrapped__")

    @pytest.mark.parametrize("is_transactional", [False, True])
    def test_it_says_whose_it_is(self, is_transactional: bool) -> None:
        with pytest.raises(SagaStateError, match="probe of step 'a'" if is_transactional else SET_IT):
            _ = NoSession("a", is_transactional=is_transactional).execute


class Writes(OneWay):
    """A step that writes in the saga's transaction."""

    transactional = True


class TestStoresOfTests:
    def test_an_authors_transactional_step_is_refused(self, ledger: list[str]) -> None:
        """It was given a list for a session, and failed at its first use."""
        orchestrator = SagaOrchestrator[OrderSaga](store=MemoryStore())
        with pytest.raises(SagaDefinitionError, match=r"step 'b' is transactional, and the store .* has no sessions"):
            orchestrator.register(NAME, saga(OneWay("a", ledger), Writes("b", ledger), kind="RETRIABLE"))
        orchestrator.register(NAME, saga(OneWay("a", ledger)))

    def test_also_where_there_is_one_for_each_item(self, ledger: list[str]) -> None:
        builder = SagaBuilder()
        builder.add_each(step=Writes("b", ledger), items=lambda ctx: [Asked()], step_id="fan", compensation=None)
        with pytest.raises(SagaDefinitionError, match="is transactional"):
            SagaOrchestrator[OrderSaga](store=MemoryStore()).register(NAME, builder.build())

    async def test_children_are_not(self, ledger: list[str]) -> None:
        """Only the engine writes in their transaction."""
        builder = SagaBuilder()
        builder.add_child("child", input_map=lambda ctx: {}, step_id="c")
        builder.add_child("child", input_map=lambda ctx: {}, step_id="d", detached=True)
        async with SagaOrchestrator[OrderSaga](store=MemoryStore()) as orchestrator:
            orchestrator.register("child", saga(OneWay("a", ledger)))
            orchestrator.register(NAME, builder.build())
            await orchestrator.run(**ORDER)
        assert "a" in ledger

    def test_a_real_store_takes_it(self, timeless: Scene, ledger: list[str]) -> None:
        timeless.orchestrator(saga(Writes("a", ledger)))
