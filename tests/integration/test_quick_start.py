"""The quick start of python-saga-orchestrator 0.1.0's README runs here unchanged: its API is our floor.

Below, between the two lines, the code is what that page tells its readers to write. Nothing in it may be changed to
suit this library.
"""

# fmt: off
# --- the code of that page -------------------------------------------------------------------------------------------

from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from saga_orchestrator import (
    BaseStep,
    ExponentialRetry,
    SagaAdmin,
    SagaBuilder,
    SagaOrchestrator,
    SagaStateMixin,
)


class Base(DeclarativeBase):
    pass


class OrderSagaState(Base, SagaStateMixin):
    __tablename__ = "order_saga_state"


class ReserveInput(BaseModel):
    order_id: str


class ReserveOutput(BaseModel):
    reservation_id: str


class ChargeInput(BaseModel):
    reservation_id: str


class ChargeOutput(BaseModel):
    payment_id: str


class ReserveInventoryStep(BaseStep[ReserveInput, ReserveOutput]):
    async def execute(self, inp: ReserveInput) -> ReserveOutput:
        return ReserveOutput(reservation_id=f"res-{inp.order_id}")

    async def compensate(self, inp: ReserveInput, out: ReserveOutput) -> None:
        return None


class ChargePaymentStep(BaseStep[ChargeInput, ChargeOutput]):
    async def execute(self, inp: ChargeInput) -> ChargeOutput:
        return ChargeOutput(payment_id=f"pay-{inp.reservation_id}")


def build_order_saga():
    builder = SagaBuilder()

    reserve_ref = builder.add_step(
        step=ReserveInventoryStep(),
        input_map=lambda ctx: ReserveInput(order_id=ctx.initial_data["order_id"]),
    )

    builder.add_step(
        step=ChargePaymentStep(),
        depends_on=reserve_ref,
        input_map=lambda out: ChargeInput(reservation_id=out.reservation_id),
        retry_policy=ExponentialRetry(
            max_attempts=3,
            base_delay=timedelta(seconds=5),
        ),
    )

    return builder.build()


def setup_saga(
        session_maker: async_sessionmaker,
) -> tuple[SagaOrchestrator[OrderSagaState], SagaAdmin[OrderSagaState]]:
    orchestrator = SagaOrchestrator[OrderSagaState](
        model_class=OrderSagaState,
        session_maker=session_maker,
    )
    orchestrator.register("create_order_v1", build_order_saga())

    admin = SagaAdmin[OrderSagaState](engine=orchestrator.engine)
    return orchestrator, admin


async def start_a_saga(session_maker: async_sessionmaker):
    orchestrator, admin = setup_saga(session_maker)

    saga_id = await orchestrator.start(
        saga_name="create_order_v1",
        initial_data={"order_id": "order-123"},
        aggregation_id="order-123",
    )
    return orchestrator, admin, saga_id

# --- the end of that code --------------------------------------------------------------------------------------------
# fmt: on

from collections.abc import AsyncIterator  # noqa: E402
from typing import Any  # noqa: E402
from uuid import uuid4  # noqa: E402

import pytest  # noqa: E402
from sqlalchemy import select  # noqa: E402
from sqlalchemy.ext.asyncio import create_async_engine  # noqa: E402


@pytest.fixture
async def session_maker(database_url: str) -> AsyncIterator[async_sessionmaker[Any]]:
    """What an application has: an engine on a database with its tables."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


async def test_the_quick_start_of_the_predecessor_runs_unchanged(session_maker: async_sessionmaker[Any]) -> None:
    """It drives the saga to its end inside `start`, and everything that the page mentions can be read afterwards."""
    orchestrator, admin, saga_id = await start_a_saga(session_maker)
    snapshot = await orchestrator.get_snapshot(saga_id)
    assert (snapshot.id, snapshot.aggregation_id, snapshot.saga_name) == (saga_id, "order-123", "create_order_v1")
    assert (snapshot.status, snapshot.current_step_index, snapshot.retry_counter) == ("COMPLETED", 2, 0)
    assert (snapshot.deadline_at, snapshot.last_error) == (None, None)
    found = await admin.get_saga(saga_id)
    assert found.context == {
        "saga_name": "create_order_v1",
        "initial_data": {"order_id": "order-123"},
        "step_outputs": {
            "step_0": {"reservation_id": "res-order-123"},
            "step_1": {"payment_id": "pay-res-order-123"},
        },
    }
    assert [(entry["step_name"], entry["phase"], entry["status"]) for entry in found.step_history] == [
        ("ReserveInventoryStep", "EXECUTE", "SUCCESS"),
        ("ChargePaymentStep", "EXECUTE", "SUCCESS"),
    ]
    assert await orchestrator.run_due(limit=100) == 0
    assert await orchestrator.notify(saga_id=saga_id, token=uuid4(), event={"approved": True}) is False
    async with session_maker() as session:
        (row,) = (await session.execute(select(OrderSagaState))).scalars()
        assert (row.id, row.status.value, row.aggregation_id) == (saga_id, "COMPLETED", "order-123")
    await orchestrator.aclose()


async def test_the_orders_of_that_page_are_called_as_it_says(
    session_maker: async_sessionmaker[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its operator's calls work with the arguments that it gives: a wait can be retried, skipped, undone, aborted."""

    async def down(self: Any, inp: ChargeInput) -> ChargeOutput:
        raise ConnectionError("the bank is away")

    monkeypatch.setattr(ChargePaymentStep, "execute", down)
    orchestrator, admin = setup_saga(session_maker)
    ends = []
    for number, order in enumerate(("skip", "compensate", "abort")):
        saga_id = await orchestrator.start(
            saga_name="create_order_v1", initial_data={"order_id": "1"}, aggregation_id=f"order-{number}"
        )
        await admin.retry_step(saga_id)
        assert (await orchestrator.get_snapshot(saga_id)).status == "SUSPENDED"
        if order == "skip":
            await admin.skip_step(saga_id, mock_output={"payment_id": "manual-payment"})
        elif order == "compensate":
            await admin.compensate_step(saga_id)
        else:
            await admin.abort(saga_id)
        ends.append((await orchestrator.get_snapshot(saga_id)).status)
    assert ends == ["COMPLETED", "COMPENSATED", "FAILED"]
    await orchestrator.aclose()
