"""The steps: each acts once in the ledger, and misbehaves as its data says.

What goes wrong (a `fate`) is in the saga's initial data, so that it is the same after every crash; only `flaky` rolls a
dice, so that a zombie and its successor can come to different ends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from saga_orchestrator import BaseStep, OutcomeUnknown, PermanentError, StepContext, StepKind
from tests.chaos.ledger import ask

FOREVER = 3_600
TORN = 0.4
SLOW = 2.5
"""Seconds that a slow step takes: longer than the lease, so that it is kept only by renewing it."""


class ActInput(BaseModel):
    """What a step is told. `of`: the effects of the steps before it. `pause`: seconds before and after it acts."""

    fate: str
    undo_fate: str
    of: dict[str, str]
    pause: float


class ActOutput(BaseModel):
    """What a step has done."""

    effect: str


class _Participant:
    """Talks to the ledger for a step."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, op: str, ctx: StepContext, **facts: object) -> dict[str, Any]:
        try:
            who = {"saga": str(ctx.saga_id), "number": ctx.aggregation_id, "saga_name": ctx.saga_name}
            return await ask(self.port, op, step=ctx.step_id, **who, **facts)
        except OSError as error:
            raise OutcomeUnknown("chaos: the ledger did not answer") from error

    async def act(self, inp: ActInput, ctx: StepContext) -> ActOutput:
        await asyncio.sleep(inp.pause)
        await self._fail_before(inp.fate, ctx)
        inputs = inp.model_dump(include={"of"})
        answer = await self.ask("do", ctx, key=ctx.idempotency_key, inputs=inputs)
        if "refused" in answer:
            raise PermanentError("chaos: turned away, it is undone already")
        if inp.fate == "torn":
            await self._tear(answer)
        await self._fail_after(inp.fate, ctx)
        await asyncio.sleep(inp.pause)
        return ActOutput(effect=answer["effect"])

    async def _tear(self, answer: Mapping[str, object]) -> None:
        """Take time to answer; if that was too much, a later attempt fails cleanly, though the first one has acted."""
        if answer["repeated"]:
            raise PermanentError("chaos: refused this time")
        await asyncio.sleep(TORN)

    async def _fail_before(self, fate: str, ctx: StepContext) -> None:
        match fate:
            case "declined" | "declined unheard":
                await self.ask("decline", ctx)
                if fate == "declined unheard" and ctx.attempt == 1:
                    raise OutcomeUnknown("chaos: declined, but nobody heard it")
                raise PermanentError("chaos: declined")
            case "transient" if ctx.attempt < 3:
                raise ConnectionError("chaos: not reached")
            case "stubborn" if ctx.attempt < 7:
                raise ConnectionError("chaos: still not reached")
            case "flaky" if random.random() < 0.6:
                raise ConnectionError("chaos: not reached this time")
            case "silent" if ctx.attempt == 1:
                raise OutcomeUnknown("chaos: it may or may not have arrived; it has not")

    async def _fail_after(self, fate: str, ctx: StepContext) -> None:
        match fate:
            case "late" if ctx.attempt == 1:
                await asyncio.sleep(FOREVER)
            case "always late":
                await asyncio.sleep(FOREVER)
            case "unheard" if ctx.attempt == 1:
                raise OutcomeUnknown("chaos: it may or may not have arrived; it has")
            case "slow":
                await asyncio.sleep(SLOW)

    async def undo(self, inp: ActInput, out: ActOutput | None, ctx: StepContext) -> None:
        await asyncio.sleep(inp.pause)
        if inp.undo_fate == "transient" and ctx.attempt < 3:
            raise ConnectionError("chaos: undo not reached")
        if inp.undo_fate == "broken" and ctx.attempt < 2:
            raise PermanentError("chaos: undo broken")
        await self.ask("undo", ctx, key=ctx.idempotency_key, effect=out and out.effect)
        if inp.undo_fate == "unheard" and ctx.attempt == 1:
            raise OutcomeUnknown("chaos: undo unheard")
        if inp.undo_fate == "late" and ctx.attempt == 1:
            await asyncio.sleep(FOREVER)
        await asyncio.sleep(inp.pause)


class Reversible(_Participant, BaseStep[ActInput, ActOutput]):
    """Can be undone whether or not its output was ever learnt."""

    async def execute(self, inp: ActInput, ctx: StepContext) -> ActOutput:
        return await self.act(inp, ctx)

    async def compensate(self, inp: ActInput, out: ActOutput | None, ctx: StepContext) -> None:
        await self.undo(inp, out, ctx)


class Exacting(_Participant, BaseStep[ActInput, ActOutput]):
    """Can be undone only with its output: in doubt to the end, it leaves residue."""

    async def execute(self, inp: ActInput, ctx: StepContext) -> ActOutput:
        return await self.act(inp, ctx)

    async def compensate(self, inp: ActInput, out: ActOutput, ctx: StepContext) -> None:
        await self.undo(inp, out, ctx)


class Probed(Reversible):
    """Can be asked whether it has acted.

    It says no only of what it has declined for good: of what is merely not there yet, a zombie may still be on its way.
    """

    async def probe(self, inp: ActInput, ctx: StepContext) -> ActOutput | None:
        found = await self.ask("look", ctx)
        if found["effect"] and not found["undone"]:
            return ActOutput(effect=found["effect"])
        if found["declined"]:
            return None
        raise OutcomeUnknown("chaos: nothing there yet")


class Final(_Participant, BaseStep[ActInput, ActOutput]):
    """Is never undone."""

    kind = StepKind.RETRIABLE

    async def execute(self, inp: ActInput, ctx: StepContext) -> ActOutput:
        return await self.act(inp, ctx)


class Reading(_Participant, BaseStep[ActInput, ActOutput]):
    """Only looks."""

    kind = StepKind.READ_ONLY

    async def execute(self, inp: ActInput, ctx: StepContext) -> ActOutput:
        await asyncio.sleep(inp.pause)
        if inp.fate == "transient" and ctx.attempt < 3:
            raise ConnectionError("chaos: not reached")
        return ActOutput(effect="")
