"""Models whose base has columns like the engine's, and hierarchies in one table: what is accepted works exactly."""
# ruff: noqa: RUF012 - SQLAlchemy wants its class attributes as they are

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from saga_orchestrator import SagaAdmin, SagaDefinition, SagaOrchestrator, SagaStateMixin, SagaStatus
from tests.regressions.scene import OneWay, saga


class Base(DeclarativeBase):
    """What many projects begin with; its timestamps win over the mixin's."""

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    updated_at: Mapped[datetime] = mapped_column(
        sa.DateTime(timezone=True), default=lambda: datetime.now(UTC), server_default=sa.func.now()
    )


class CommonSaga(Base, SagaStateMixin):
    """A saga of such a project."""

    __tablename__ = "common_saga"


class AnySaga(Base, SagaStateMixin):
    """The base of several kinds of sagas."""

    __tablename__ = "any_saga"
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "any"}


class Refund(AnySaga):
    """One of them."""

    __mapper_args__ = {"polymorphic_identity": "refund"}


class NamedSaga(Base, SagaStateMixin):
    """Sagas that are told apart by their name, which the engine writes."""

    __tablename__ = "named_saga"
    __mapper_args__ = {"polymorphic_on": "saga_name"}


class NamedRefund(NamedSaga):
    """One of them."""

    __mapper_args__ = {"polymorphic_identity": "refund"}


@pytest.fixture
async def engine(database_url: str) -> Any:
    opened = create_async_engine(database_url)
    async with opened.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield opened
    await opened.dispose()


def orchestrator_of(model: Any, engine: AsyncEngine, definition: SagaDefinition) -> SagaOrchestrator[Any]:
    orchestrator: SagaOrchestrator[Any] = SagaOrchestrator(model_class=model, session_maker=async_sessionmaker(engine))
    orchestrator.register("refund", definition)
    return orchestrator


async def test_aware_timestamps_of_the_base_are_read_as_they_were_written(engine: AsyncEngine) -> None:
    """On SQLite they came back without their time zone."""
    async with orchestrator_of(CommonSaga, engine, saga(OneWay("a", []))) as orchestrator:
        saga_id = await orchestrator.start(saga_name="refund", initial_data={}, aggregation_id="1")
        assert (await orchestrator.result(saga_id)).status is SagaStatus.COMPLETED
        found = (await SagaAdmin(engine=orchestrator.engine).list_sagas(created_before=datetime.now(UTC))).items
    assert [(each.id, each.created_at.utcoffset()) for each in found] == [(saga_id, datetime.now(UTC).utcoffset())]
    async with async_sessionmaker(engine)() as session:
        row = (await session.scalars(sa.select(CommonSaga))).one()
        assert row.updated_at >= row.created_at >= found[0].created_at


@pytest.mark.parametrize(("values", "kind"), [({}, AnySaga), ({"kind": "refund"}, Refund)])
async def test_a_saga_of_a_hierarchy_is_of_the_class_that_was_asked_for(
    engine: AsyncEngine, values: dict[str, Any], kind: type[Any]
) -> None:
    """Without a word it is of the base's identity, which was not written."""
    async with orchestrator_of(AnySaga, engine, saga(OneWay("a", []))) as orchestrator:
        wanted: Any = {"saga_name": "refund", "initial_data": {}, "values": values}
        first = await orchestrator.start(**wanted, aggregation_id="1")
        async with async_sessionmaker(engine).begin() as session:
            second = await orchestrator.start(**wanted, aggregation_id="2", session=session)
        await orchestrator.result(second)
    async with async_sessionmaker(engine)() as session:
        rows = (await session.scalars(sa.select(kind))).all()
    assert {(row.id, type(row)) for row in rows} == {(first, kind), (second, kind)}


async def test_a_name_may_tell_the_classes_apart(engine: AsyncEngine) -> None:
    """The engine writes it, so a subclass may be the orchestrator's model."""
    async with orchestrator_of(NamedRefund, engine, saga(OneWay("a", []))) as orchestrator:
        saga_id = await orchestrator.start(saga_name="refund", initial_data={}, aggregation_id="1")
        await orchestrator.result(saga_id)
    async with async_sessionmaker(engine)() as session:
        assert [row.id for row in await session.scalars(sa.select(NamedRefund))] == [saga_id]
