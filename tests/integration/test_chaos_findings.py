"""What chaos found: each defect that `tests/chaos` brought to light, as a small test of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    BaseStep,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStatus,
)


class Base(DeclarativeBase):
    """The tables."""


class FoundSaga(Base, SagaStateMixin):
    """The sagas."""

    __tablename__ = "found_saga"


class Number(BaseModel):
    """A payload."""

    number: int = 0


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A database with the tables."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


def orchestrator_on(engine: AsyncEngine, definition: SagaDefinition) -> SagaOrchestrator[FoundSaga]:
    orchestrator = SagaOrchestrator[FoundSaga](model_class=FoundSaga, session_maker=async_sessionmaker(engine))
    orchestrator.register("found", definition)
    return orchestrator


class Probed(BaseStep[Number, Number]):
    """Is cut off in its first attempt, and can be asked afterwards."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def execute(self, inp: Number) -> Number:
        self.begun.set()
        await asyncio.Event().wait()
        return inp

    async def probe(self, inp: Number) -> Number | None:
        return Number(number=inp.number + 1)


async def test_an_attempt_lost_without_a_recorded_input_is_probed_with_its_input_made_again(
    engine: AsyncEngine,
) -> None:
    """The history of a lost attempt has no input: SQL's NULL, not the JSON null that once was read as an input."""
    step = Probed()
    builder = SagaBuilder()
    builder.add_step(step=step, step_id="probed", input_map=lambda ctx: Number(number=ctx.initial_data["number"]))
    first, second = (orchestrator_on(engine, builder.build()) for _ in range(2))
    starting = asyncio.ensure_future(first.start(saga_name="found", initial_data={"number": 41}, aggregation_id="a"))
    await step.begun.wait()
    await first.aclose()
    saga_id = await starting
    async with second:
        assert await second.run_due() == 1
        result = await second.result(saga_id)
    assert (result.status, result.outputs) == (SagaStatus.COMPLETED, {"probed": {"number": 42}})
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT status, input IS NULL FROM found_saga_history ORDER BY seq"))
        assert [tuple(row) for row in rows] == [("IN_DOUBT", 1), ("SUCCESS", 0)]
