"""The sagas of the application under chaos: side by side, with waits, rows of their own, lists, and a child."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete

from saga_orchestrator import (
    BaseStep,
    FixedRetry,
    InputContext,
    SagaBuilder,
    SagaDefinition,
    StepContext,
    StepKind,
)
from tests.chaos.graphs import CHILD, GRAPHS, TOLERATED, fan_of
from tests.chaos.participants import ActInput, ActOutput, Exacting, Final, Probed, Reading, Reversible
from tests.chaos.tables import Booking

CONFIRMED = "bundle.confirmed"
"""What a bundle waits for."""
ATTEMPTS = 4
UNDO_ATTEMPTS = 4
_UNDO: dict[str, Any] = {
    "compensation_retry": FixedRetry(UNDO_ATTEMPTS, timedelta(seconds=0.1)),
    "compensation_timeout": timedelta(seconds=0.6),
}


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


def definitions(port: int) -> dict[str, SagaDefinition]:
    """Return all sagas, by name, with participants that talk to the ledger at this port."""
    made = {"order": _order, "trip": _trip, "bundle": _bundle, "mailing": _mailing, "journey": _journey, CHILD: _stay}
    return {name: define(port) for name, define in made.items()}


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


def _mailing(port: int) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Reversible(port), step_id="stamp", **_options("mailing", "stamp"), **_UNDO)
    builder.add_each(step=Probed(port), step_id="parcel", max_parallel=2, **_each("mailing", "parcel"), **_UNDO)
    tolerate = TOLERATED["letter.*"]
    builder.add_each(step=Reversible(port), step_id="letter", tolerate=tolerate, **_each("mailing", "letter"), **_UNDO)
    builder.add_step(step=Reversible(port), step_id="file", **_options("mailing", "file"), **_UNDO)
    return builder.build()


def _journey(port: int) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Reversible(port), step_id="ticket", **_options("journey", "ticket"), **_UNDO)
    builder.add_child(
        CHILD, input_map=lambda ctx: {"steps": ctx.initial_data["steps"][CHILD]}, output_model=ActOutput, step_id=CHILD
    )
    builder.add_step(step=Reversible(port), step_id="insure", **_options("journey", "insure"), **_UNDO)
    return builder.build()


def _stay(port: int) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=Probed(port), step_id="room", **_options(CHILD, "room"), **_UNDO)
    builder.add_step(step=Reversible(port), step_id="keys", **_options(CHILD, "keys"), **_UNDO)
    return builder.build()


def _options(saga_name: str, step_id: str) -> dict[str, Any]:
    def told(ctx: InputContext) -> ActInput:
        return ActInput(of=_before(ctx, saga_name, step_id), **ctx.initial_data["steps"][step_id])

    return {"input_map": told, **_patience()}


def _each(saga_name: str, fan: str) -> dict[str, Any]:
    def told(ctx: InputContext) -> list[dict[str, Any]]:
        of = _before(ctx, saga_name, f"{fan}.*")
        return [{"of": of, **mine} for mine in ctx.initial_data["steps"][fan]]

    return {"items": told, **_patience()}


def _patience() -> dict[str, Any]:
    return {"retry_policy": FixedRetry(ATTEMPTS, timedelta(seconds=0.1)), "timeout": timedelta(seconds=0.6)}


def _before(ctx: InputContext, saga_name: str, place: str) -> dict[str, str]:
    """Return the effects of the steps before this one, as they were recorded."""
    found: dict[str, str] = {}
    for before in GRAPHS[saga_name].get(place, ()):
        found |= _recorded(ctx.step_outputs, before)
    return found


def _recorded(outputs: Mapping[str, Any], place: str) -> dict[str, str]:
    """Return the effects of one step, or of the items of a fan without those that were missed."""
    if (fan := fan_of(place)) is None:
        return {place: outputs[place]["effect"]}
    return {f"{fan}.{index}": out["effect"] for index, out in enumerate(outputs[fan]) if out is not None}
