"""More mistakes of one's first day: each is refused where it is made, and names what to write."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped

from saga_orchestrator import (
    BaseStep,
    Event,
    SagaAdmin,
    SagaBuilder,
    SagaDefinitionError,
    SagaError,
    SagaNotFoundError,
    SagaOrchestrator,
    SagaStateError,
    SagaStateMixin,
    SagaStatus,
    SagaWorker,
    TypeValidationError,
    WaitFor,
    step,
)
from saga_orchestrator.definition.step import make_step
from tests.regressions.scene import ORDER, OneWay, Scene, admin_of, saga


class Note(BaseModel):
    """What goes in and comes out."""

    text: str = ""


class OwnBase(DeclarativeBase):
    """A base of its own, so that no other test makes this table."""


class TenantSaga(OwnBase, SagaStateMixin):
    """A saga with a column that has to be given."""

    __tablename__ = "tenant_saga"
    tenant: Mapped[str]


@pytest.mark.parametrize("made", [SagaAdmin, SagaWorker])
async def test_the_engine_of_sqlalchemy_is_told_from_the_orchestrator(
    timeless: Scene, ledger: list[str], made: Any
) -> None:
    """It was an AttributeError at the first call; the orchestrator itself will do."""
    for wrong in (timeless.engine, timeless.sessions, None):
        with pytest.raises(SagaDefinitionError, match=rf"give it the orchestrator: {made.__name__}\(orchestrator\)"):
            made(wrong)
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    saga_id = await orchestrator.start(**ORDER)
    assert (await SagaAdmin(orchestrator).get_saga(saga_id)).status is SagaStatus.COMPLETED
    made(orchestrator)
    made(orchestrator.engine)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfff"])
@pytest.mark.parametrize("name", ["saga_name", "aggregation_id", "trace_id", "awaiting"])
async def test_a_filter_with_characters_that_no_database_takes_is_refused(
    scene: Scene, ledger: list[str], name: str, text: str
) -> None:
    """It was an error of the driver's."""
    admin = admin_of(scene.orchestrator(saga(OneWay("a", ledger))))
    with pytest.raises(SagaError, match=f"{name} holds a NUL or half of a surrogate pair"):
        await admin.list_sagas(**{name: text})  # type: ignore[arg-type]
    with pytest.raises(SagaError, match="saga_name holds"):
        await admin.dirty_sagas(saga_name=text)
    with pytest.raises(SagaStateError, match="give it the next_cursor of the page before"):
        await admin.list_sagas(cursor=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("joined", [True, False])
async def test_values_for_unknown_or_missing_columns_are_refused(
    database_url: str, timeless: Scene, ledger: list[str], joined: bool
) -> None:
    """Before anything is written, so that the same start can be made again."""
    sessions = async_sessionmaker(timeless.engine)
    async with timeless.engine.begin() as connection:
        await connection.run_sync(OwnBase.metadata.create_all)
    orchestrator: SagaOrchestrator[Any] = SagaOrchestrator(model_class=TenantSaga, session_maker=sessions)
    orchestrator.register("order", saga(OneWay("a", ledger)))
    wrong: list[tuple[dict[Any, Any], str]] = [
        ({"tennant": "acme"}, "'tennant', which is no column of TenantSaga. Its own columns: tenant"),
        ({1: 2}, "values= names 1"),
        ({"step_history": []}, "'step_history', which is no column"),
        ({}, "TenantSaga needs a value for tenant, which may not be NULL"),
        ({"tenant": None}, "TenantSaga needs a value for tenant"),
        ({"tenant": "a\0"}, "The value of 'tenant' holds a NUL"),
    ]
    async with orchestrator, sessions.begin() as session:
        more: dict[str, Any] = {"session": session} if joined else {}
        for values, said in wrong:
            with pytest.raises(SagaError, match=said):
                await orchestrator.start(**ORDER, **more, values=values)
        assert await orchestrator.start(**ORDER, **more, values={"tenant": "acme"})


async def test_a_saga_whose_start_is_not_committed_is_told_from_one_that_nobody_knows(
    timeless: Scene, ledger: list[str]
) -> None:
    """Whoever asks for its result before the commit reads why there is none."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    async with timeless.sessions() as session:
        saga_id = await orchestrator.start(**ORDER, session=session)
        await session.rollback()
    with pytest.raises(SagaNotFoundError, match="started with session= is there once it has committed"):
        await orchestrator.result(saga_id)


def test_a_second_function_in_one_role_is_refused() -> None:
    """The last one won, silently: nobody could say which undo was meant."""

    @step
    def charge(amount: int) -> str:
        return "ok"

    for role in ("compensate", "probe", "confirm", "on_event"):
        getattr(charge, role)(lambda: None)
        with pytest.raises(SagaDefinitionError, match=f"Step 'charge' has a {role} already"):
            getattr(charge, role)(lambda: None)
    euros = charge.bind()
    euros.compensate(lambda: None)
    with pytest.raises(SagaDefinitionError, match="has a compensate already"):
        euros.compensate(lambda: None)


@pytest.mark.parametrize("what", ["parallel", "branch"])
def test_a_block_without_with_is_refused(what: str) -> None:
    """Its steps stood one after another."""
    builder = SagaBuilder()
    if what == "parallel":
        builder.parallel()
    else:
        with builder.parallel() as block:
            block.branch()
    builder.add_step(step=OneWay("a", []), input_map=lambda ctx: {}, step_id="a", compensation=None)
    with pytest.raises(SagaDefinitionError, match="was called without `with`"):
        builder.build()


def test_an_annotation_of_execute_that_cannot_be_resolved_is_refused() -> None:
    """A wait that was hidden in it was found out when the saga ran."""
    with pytest.raises(TypeValidationError, match="execute's return annotation cannot be resolved"):

        class Typo(BaseStep[Note, Note]):
            async def execute(self, inp: Note) -> Noet: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(TypeValidationError, match="execute's input annotation cannot be resolved"):

        class Given(BaseStep[Note, Note]):
            async def execute(self, inp: Noet) -> Note: ...  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize("answer", [dict, bool, "Event"])
def test_an_on_event_that_returns_something_else_is_refused(answer: Any) -> None:
    """It was found out when the event had come."""

    async def execute(self: Any, inp: Note) -> Note | WaitFor: ...

    async def on_event(self: Any, inp: Note, event: Event[Any]) -> Any: ...

    on_event.__annotations__["return"] = answer
    with pytest.raises(TypeValidationError, match=r"on_event returns .*, but execute Note"):
        make_step("Waits", Note, Note, {"execute": execute, "on_event": on_event})
    for fine in (Note, Note | WaitFor, Note | WaitFor | None, WaitFor, None, Any):
        on_event.__annotations__["return"] = fine
        make_step("Waits", Note, Note, {"execute": execute, "on_event": on_event})
