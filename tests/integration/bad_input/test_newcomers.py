"""Mistakes of one's first day: what each is told, in words that say what to do."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from saga_orchestrator import (
    SagaBuilder,
    SagaDefinition,
    SagaDefinitionError,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    SagaWorker,
)
from tests.regressions.scene import NAME, ORDER, Base, OneWay, OrderSaga, Scene, admin_of, saga
from tests.support import logs


@pytest.mark.parametrize("wrong", ["order-1", "01a22b5a-9eaf-7e69-835f-8944c1844610", 7, None])
async def test_what_is_no_saga_id_is_told_from_one_that_nobody_has(
    timeless: Scene, ledger: list[str], wrong: Any
) -> None:
    """An aggregate's id, the text of a UUID, and a start that was not awaited came back as an error of SQL."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    admin = admin_of(orchestrator)
    asks: list[Any] = [
        orchestrator.get_snapshot(wrong),
        orchestrator.result(wrong),
        orchestrator.resume(wrong),
        orchestrator.commit(wrong),
        orchestrator.notify(saga_id=wrong, token=uuid4()),
        anext(orchestrator.watch(wrong)),
        admin.get_saga(wrong),
        admin.dirty_state(wrong),
        admin.retry_step(wrong),
        admin.skip_step(wrong),
        admin.compensate_step(wrong),
        admin.rewind(wrong, "a"),
        admin.cancel(wrong),
        admin.abort(wrong),
        admin.pause(wrong),
        admin.waive_step(wrong, "a", actor="ada"),
    ]
    for ask in asks:
        with pytest.raises(SagaStateError, match=f"saga_id is {wrong!r}; give it the UUID that `await start"):
            await ask


def test_a_model_without_the_mixin_is_refused(timeless: Scene) -> None:
    """It was a KeyError for one of the columns that it has not."""
    with pytest.raises(SagaDefinitionError, match=r"model_class is .*Base.*class OrderSaga\(Base, SagaStateMixin\)"):
        SagaOrchestrator(model_class=Base, session_maker=timeless.sessions)  # type: ignore[type-var]


def test_an_engine_is_no_session_maker(timeless: Scene) -> None:
    """It was an AttributeError for something that nobody has heard of."""
    engine: Any = timeless.engine
    with pytest.raises(SagaDefinitionError, match=r"session_maker is .*AsyncEngine.*async_sessionmaker\(engine"):
        SagaOrchestrator[OrderSaga](model_class=OrderSaga, session_maker=engine)


async def test_a_name_that_was_never_registered_says_how(timeless: Scene) -> None:
    """In each process: a definition is code, and is not found in the database."""
    with pytest.raises(SagaDefinitionError, match=r"known: none\. Call register\('order', \.\.\.\) in this process"):
        await timeless.orchestrator().start(**ORDER)


def test_a_definition_in_the_place_of_its_name_is_not_shown_whole(timeless: Scene, ledger: list[str]) -> None:
    """It filled the screen."""
    swapped: Any = saga(OneWay("a", ledger)), NAME
    with pytest.raises(SagaDefinitionError, match=r"register\(\) takes what SagaBuilder.build\(\) returned") as raised:
        timeless.orchestrator().register(*swapped)
    assert len(str(raised.value)) < 200


def parent_of(*names: str, detached: bool = False) -> SagaDefinition:
    builder = SagaBuilder()
    for name in names:
        builder.add_child(name, input_map=lambda ctx: {}, step_id=f"do {name}", detached=detached)
    return builder.build()


async def test_a_worker_that_knows_no_saga_says_so(timeless: Scene, ledger: list[str]) -> None:
    """It looks, finds nothing that is its own, and would be silent for ever."""
    with logs.logged("WARNING") as said:
        for definition in (saga(OneWay("a", ledger)), None):
            worker = SagaWorker(timeless.orchestrator(definition))
            worker.stop()
            await worker.run()
            assert len(said) == (definition is None)
    assert "no saga is registered in its process; call register first" in said[0]


async def test_a_commit_of_what_commits_by_itself_changes_nothing(timeless: Scene) -> None:
    """Also while it waits for something else; it goes on as it would have."""
    builder = SagaBuilder()
    builder.add_event("paid", step_id="paid")
    orchestrator = timeless.orchestrator(builder.build())
    saga_id = await orchestrator.start(**ORDER)
    before = await orchestrator.get_snapshot(saga_id)

    for decide in (orchestrator.commit, orchestrator.reject):
        with pytest.raises(SagaStateError, match=r"SUSPENDED, and commits by itself.*SagaBuilder\(commit='manual'\)"):
            await decide(saga_id)

    assert await orchestrator.get_snapshot(saga_id) == before
    await orchestrator.signal("paid", saga_id=saga_id, payload=1)
    assert (await orchestrator.result(saga_id)).status is SagaStatus.COMPLETED


class TestChildrenWithoutEnd:
    def test_a_saga_that_is_always_its_own_child_is_refused(self, timeless: Scene, ledger: list[str]) -> None:
        """It started children until somebody stopped it; nothing of it is registered."""
        orchestrator = timeless.orchestrator()
        with pytest.raises(SagaDefinitionError, match=r"step 'do order' of 'order' starts 'order' again, .*add_choice"):
            orchestrator.register(NAME, parent_of(NAME))
        orchestrator.register(NAME, saga(OneWay("a", ledger)))

    def test_so_is_one_that_is_a_child_of_its_children(self, timeless: Scene) -> None:
        """Whichever of them is registered last."""
        orchestrator = timeless.orchestrator()
        orchestrator.register("b", parent_of("x", "c"))
        orchestrator.register("c", parent_of("a"))
        with pytest.raises(SagaDefinitionError, match="step 'do a' of 'c' starts 'a' again"):
            orchestrator.register("a", parent_of("b"))

    def test_one_child_of_two_parents_is_none(self, timeless: Scene) -> None:
        """It is started twice, and ends."""
        orchestrator = timeless.orchestrator()
        orchestrator.register("b", parent_of("d"))
        orchestrator.register("c", parent_of("d"))
        orchestrator.register("a", parent_of("b", "c"))

    def test_a_saga_may_start_its_successor(self, timeless: Scene) -> None:
        """Nobody waits for that one, so each completes."""
        timeless.orchestrator().register(NAME, parent_of(NAME, detached=True))

    def test_only_the_newest_version_is_started_again(self, timeless: Scene, ledger: list[str]) -> None:
        """A child is of the newest one; an older one, that may still be on its way, can have it as a child."""
        orchestrator = timeless.orchestrator(saga(OneWay("a", ledger), version=2))
        orchestrator.register(NAME, parent_of(NAME))


def test_sessions_that_are_bound_to_a_model_will_do(timeless: Scene) -> None:
    """An application may have several databases."""
    sessions: Any = async_sessionmaker(binds={OrderSaga: timeless.engine})
    SagaOrchestrator[OrderSaga](model_class=OrderSaga, session_maker=sessions)


def test_sessions_that_are_bound_to_nothing_are_refused() -> None:
    """It was an error of SQLAlchemy's that says nothing of the session maker."""
    with pytest.raises(SagaDefinitionError, match="session_maker has no engine for OrderSaga; make it with async_sess"):
        SagaOrchestrator[OrderSaga](model_class=OrderSaga, session_maker=async_sessionmaker())
