"""The application under chaos: its tables, its three sagas, and the orders that it takes."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import String, delete
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    InputContext,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateMixin,
    StepContext,
    StepKind,
)
from tests.chaos.graphs import GRAPHS
from tests.chaos.participants import ActInput, ActOutput, Exacting, Final, Probed, Reading, Reversible

CONFIRMED = "bundle.confirmed"
"""What a bundle waits for."""
LEASE = timedelta(seconds=1.5)
ATTEMPTS = 4
UNDO_ATTEMPTS = 4
_FAILING = ("declined", "declined unheard", "always late")
_PASSING = ("transient", "flaky", "silent", "late", "unheard", "torn")
_FATES = {  # what a step may meet, besides what every step may
    "pack": ("slow", "torn", "transient", "flaky", "silent", "unheard"),  # it has no timeout
    "notify": ("stubborn", "transient", "silent", "late", "unheard"),
    "quote": ("transient",),
    "book": ("transient", "late"),
}
_UNDO_FATES = ("transient", "transient", "unheard", "late", "broken")


class Base(DeclarativeBase):
    """The application's tables."""


class ChaosSaga(Base, SagaStateMixin):
    """The sagas."""

    __tablename__ = "chaos_saga"


class BusinessRow(Base):
    """What the application writes in the transaction that starts a saga: one is there if and only if the other is."""

    __tablename__ = "chaos_business"
    number: Mapped[str] = mapped_column(String(80), primary_key=True)
    saga_id: Mapped[uuid.UUID] = mapped_column()


class Booking(Base):
    """What a transactional step writes: one is there if and only if the saga says that the step stands."""

    __tablename__ = "chaos_booking"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    saga_id: Mapped[uuid.UUID] = mapped_column()


class Book(BaseStep[ActInput, ActOutput]):
    """Books in the application's own database, in one transaction with the record of it."""

    transactional = True

    async def execute(self, inp: ActInput, ctx: StepContext) -> ActOutput:
        ctx.session.add(Booking(saga_id=ctx.saga_id))
        await ctx.session.flush()
        await asyncio.sleep(inp.pause)
        if inp.fate in ("transient", "late") and ctx.attempt == 1:
            raise ConnectionError("chaos: not reached, and what was booked is rolled back")
        return ActOutput(effect="")

    async def compensate(self, inp: ActInput, out: ActOutput, ctx: StepContext) -> None:
        await asyncio.sleep(inp.pause)
        await ctx.session.execute(delete(Booking).where(Booking.saga_id == ctx.saga_id))


def connect(url: str) -> AsyncEngine:
    """Return an engine as an application would make it: nothing is tuned to survive."""
    return create_async_engine(url, pool_size=8, max_overflow=8)


def orchestrate(engine: AsyncEngine, ledger_port: int) -> SagaOrchestrator[ChaosSaga]:
    """Return an orchestrator that knows the three sagas."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    orchestrator = SagaOrchestrator[ChaosSaga](model_class=ChaosSaga, session_maker=sessions, execution_lease=LEASE)
    for name, define in (("order", _order), ("trip", _trip), ("bundle", _bundle)):
        orchestrator.register(name, define(ledger_port))
    return orchestrator


def _order(port: int) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Reversible(port), step_id="reserve", **_options("order", "reserve"), **_UNDO)
    with builder.parallel():
        builder.add_step(step=Probed(port), step_id="charge", **_options("order", "charge"), **_UNDO)
        builder.add_step(
            step=Reversible(port), step_id="pack", **{**_options("order", "pack"), "timeout": None}, **_UNDO
        )
    builder.add_step(step=Final(port), step_id="dispatch", kind=StepKind.PIVOT, **_options("order", "dispatch"))
    builder.add_step(step=Final(port), step_id="notify", **_options("order", "notify"))
    return builder.build()


def _trip(port: int) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Exacting(port), step_id="flight", **_options("trip", "flight"), **_UNDO)
    builder.add_step(step=Probed(port), step_id="hotel", on_undo_failure="stop", **_options("trip", "hotel"), **_UNDO)
    builder.add_step(step=Reversible(port), step_id="car", **_options("trip", "car"), **_UNDO)
    return builder.build()


def _bundle(port: int) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Reading(port), step_id="quote", **_options("bundle", "quote"))
    builder.add_event(CONFIRMED, step_id="confirmed")
    builder.add_step(step=Book(), step_id="book", **{**_options("bundle", "book"), "timeout": None}, **_UNDO)
    with builder.parallel() as block:
        with block.branch():
            builder.add_step(step=Reversible(port), step_id="label", **_options("bundle", "label"), **_UNDO)
            builder.add_step(step=Probed(port), step_id="print", **_options("bundle", "print"), **_UNDO)
        builder.add_step(step=Exacting(port), step_id="wrap", **_options("bundle", "wrap"), **_UNDO)
    builder.add_step(step=Reversible(port), step_id="seal", **_options("bundle", "seal"), **_UNDO)
    return builder.build()


_UNDO: dict[str, Any] = {
    "compensation_retry": FixedRetry(UNDO_ATTEMPTS, timedelta(seconds=0.1)),
    "compensation_timeout": timedelta(seconds=0.6),
}


def _options(saga_name: str, step_id: str) -> dict[str, Any]:
    before = GRAPHS[saga_name].get(step_id, ())

    def told(ctx: InputContext) -> ActInput:
        mine: Mapping[str, Any] = ctx.initial_data["steps"][step_id]
        return ActInput(of={i: ctx.step_outputs[i]["effect"] for i in before}, **mine)

    return {
        "input_map": told,
        "retry_policy": FixedRetry(ATTEMPTS, timedelta(seconds=0.1)),
        "timeout": timedelta(seconds=0.6),
    }


def draw_order(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a saga's name and initial data, with what its steps will meet."""
    saga_name = chance.choice(sorted(GRAPHS))
    steps = [*GRAPHS[saga_name], *(["quote", "book"] if saga_name == "bundle" else [])]
    return saga_name, {"steps": {step_id: _drawn(chance, step_id) for step_id in steps}}


def _drawn(chance: random.Random, step_id: str) -> dict[str, Any]:
    fates = _FATES.get(step_id, _FAILING + _PASSING)
    return {
        "fate": chance.choice(fates) if chance.random() < 0.3 else "well",
        "undo_fate": chance.choice(_UNDO_FATES) if chance.random() < 0.3 else "well",
        "pause": chance.choice((0.0, 0.005, 0.02, 0.05)),
    }
