"""The steps, and the services outside that they act on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel

from saga_orchestrator import BaseStep, DirtyState, OutcomeUnknown, PermanentError, StepContext, StepKind
from saga_orchestrator.definition.finish import COMMIT, DECISION
from saga_orchestrator.kernel.effects import Compensate, Execute, Probe, Work
from saga_orchestrator.kernel.state import State
from saga_orchestrator.kernel.step_status import Succeeded
from saga_orchestrator.runtime.tenure import Tenure

from .ledger import HookError, Part, Place
from .moods import COMPENSATING, EXECUTING, PROBING
from .states import decode

if TYPE_CHECKING:
    from .world import World


class Request(BaseModel):
    """What a step is called with: who it is for, and the receipts of the steps that it depends on."""

    aggregate: str
    receipts: list[int] = []


class Receipt(BaseModel):
    """What a step returns; 0 for one that an operator skipped."""

    number: int = 0


class InCents(Receipt):
    """A receipt of another class: read back as a `Receipt`, it would be that of something else."""

    unit: str = "cents"


class Acting(BaseStep[Request, Receipt]):
    """A step whose effect is never undone: a pivot, or one after it."""

    def __init__(self, world: World) -> None:
        self.services = Services(world)

    async def execute(self, inp: Request, ctx: StepContext) -> Receipt:
        return await self.services.execute(inp, ctx)


class Exact(Acting):
    """A step that can only be undone by its receipt."""

    async def compensate(self, inp: Request, out: Receipt, ctx: StepContext) -> None:
        await self.services.compensate(inp, out, ctx)


class Blind(Acting):
    """A step that can be undone by its key alone."""

    async def compensate(self, inp: Request, out: Receipt | None, ctx: StepContext) -> None:
        await self.services.compensate(inp, out, ctx)


class Parted(Blind):
    """A step that does a part of its work by itself, before the rest, and so does its undo."""

    async def execute(self, inp: Request, ctx: StepContext) -> Receipt:
        await self.services.take_part(inp, ctx)
        return await self.services.execute(inp, ctx)

    async def compensate(self, inp: Request, out: Receipt | None, ctx: StepContext) -> None:
        await self.services.take_part(inp, ctx, knows=out is not None)
        await self.services.compensate(inp, out, ctx)


class Failing(Blind):
    """A step that never acts."""

    async def execute(self, inp: Request, ctx: StepContext) -> Receipt:
        await self.services.pause()
        raise PermanentError("it did not act, and never will")


class ProbedActing(Acting):
    """Like `Acting`, and can be asked."""

    async def probe(self, inp: Request, ctx: StepContext) -> Receipt | None:
        return await self.services.probe(inp, ctx)


class ProbedExact(Exact):
    """Like `Exact`, and can be asked."""

    async def probe(self, inp: Request, ctx: StepContext) -> Receipt | None:
        return await self.services.probe(inp, ctx)


class ProbedBlind(Blind):
    """Like `Blind`, and can be asked."""

    async def probe(self, inp: Request, ctx: StepContext) -> Receipt | None:
        return await self.services.probe(inp, ctx)


class Held(ProbedBlind):
    """A step whose effect is provisional, until it is confirmed."""

    async def confirm(self, inp: Request, out: Receipt, ctx: StepContext) -> None:
        await self.services.confirm(inp, out, ctx)


class Reading(BaseStep[Request, Receipt]):
    """A step without an effect."""

    kind = StepKind.READ_ONLY

    def __init__(self, world: World) -> None:
        self.services = Services(world)

    async def execute(self, inp: Request, ctx: StepContext) -> Receipt:
        return await self.services.execute(inp, ctx)


class Services:
    """What the steps act on. A call does well, or fails in one of the ways in which calls fail."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def execute(self, inp: Request, ctx: StepContext) -> Receipt:
        heard = heard_by(ctx)
        self._check_ordered(ctx, Execute(ctx.step_id, ctx.attempt, ctx.in_doubt, heard))
        with self._world.ledger.call(
            ctx, "on_event" if heard else "execute", inp.model_dump_json(), self._tenure(ctx.saga_id)
        ):
            mood = self._mood(EXECUTING, f"execute {ctx.step_id} #{ctx.attempt}", ctx)
            return await mood(self, Place.called(ctx))

    async def compensate(self, inp: Request, out: Receipt | None, ctx: StepContext) -> None:
        known = (False, True) if heard_by(ctx) else (out is not None,)
        self._check_ordered(ctx, *(Compensate(ctx.step_id, ctx.attempt, each, heard_by(ctx)) for each in known))
        self._check_receipt(ctx, out)
        with self._world.ledger.call(ctx, "compensate", inp.model_dump_json(), self._tenure(ctx.saga_id)):
            mood = self._mood(COMPENSATING, f"compensate {ctx.step_id} #{ctx.attempt}", ctx)
            await mood(self, Place.called(ctx))

    async def take_part(self, inp: Request, ctx: StepContext, *, knows: bool = False) -> None:
        """Do a part, once: who has been told that it is done need never do it again."""
        with self._world.ledger.call(ctx, "part", inp.model_dump_json(), self._tenure(ctx.saga_id)) as call:
            part = Part(call.place, ctx.phase, knows)
            told = await ctx.once("first", lambda: self._world.ledger.do_part(part, call, self.pause))
            self._world.ledger.remember(part, call, told)

    async def confirm(self, inp: Request, out: Receipt, ctx: StepContext) -> None:
        place, state = Place.called(ctx), self._state(ctx.saga_id)
        self._check_ordered(ctx, Execute(place.step_id, ctx.attempt, ctx.in_doubt))
        self._check_receipt(ctx, out)
        if not isinstance(state.of(COMMIT), Succeeded):
            self._world.blame(f"{self._world.label(ctx.saga_id)}: {ctx.step_id} is confirmed, and nothing is committed")
        if DECISION in state.open:
            self._world.blame(f"{self._world.label(ctx.saga_id)}: {ctx.step_id} is confirmed, and nobody has decided")
        with self._world.ledger.call(ctx, "confirm", inp.model_dump_json(), self._tenure(ctx.saga_id)):
            mood = self._mood(EXECUTING, f"confirm {ctx.step_id} #{ctx.attempt}", ctx)
            await mood(self, place)

    async def probe(self, inp: Request, ctx: StepContext) -> Receipt | None:
        self._check_ordered(ctx, Probe(ctx.step_id, ctx.attempt))
        with self._world.ledger.call(ctx, "probe", inp.model_dump_json(), self._tenure(ctx.saga_id)):
            mood = self._mood(PROBING, f"probe {ctx.step_id} #{ctx.attempt}", ctx)
            return await mood(self, Place.called(ctx))

    async def close_all(self, saga_id: UUID) -> bool:
        """Close whatever a saga has done, all at once; or fail, or say that it did not come off."""
        with self._world.ledger.hook(saga_id, self._tenure(saga_id)):
            self._world.simulation.note(f"    {self._world.label(saga_id)} close_all")
            await self._suffer_in_hook()
            if self._world.rolls(self._world.plan.unruly):
                return False
            self._world.ledger.close(saga_id)
            self._world.simulation.note(f"    {self._world.label(saga_id)} CLOSED")
            await self._suffer_in_hook()
            return True

    async def alert_human(self, saga_id: UUID, dirty: DirtyState) -> None:
        """Tell somebody, or fail."""
        with self._world.ledger.hook(saga_id, self._tenure(saga_id)):
            await self._suffer_in_hook()

    async def _suffer_in_hook(self) -> None:
        await self.pause()
        if self._world.rolls(0.5 * self._world.plan.unruly):
            raise HookError("the hook failed")

    def act(self, place: Place) -> Receipt:
        """Act outside, or be refused because it was cancelled there."""
        number = self._world.ledger.do(place)
        self._world.simulation.note(f"    {self._world.label(place[0])} {place.step_id}{place.life} ACTED")
        return Receipt(number=number)

    def in_cents(self, receipt: Receipt) -> InCents:
        return InCents(number=100 * receipt.number)

    def undo(self, place: Place) -> None:
        """Undo outside, which is too late for what is final."""
        if confirmed := [each for each in self._world.ledger.standing(place.saga_id) if each.is_final]:
            self._world.blame(f"{place.step_id} is undone, and {confirmed[0].step_id} stands")
        self._world.ledger.undo(place)
        self._world.simulation.note(f"    {self._world.label(place[0])} {place.step_id}{place.life} UNDID")

    def learn(self, place: Place) -> Receipt | None:
        """Find out whether it was done; honest, so it does not say no while somebody may still do it."""
        effect = self._world.ledger.effect(place)
        if effect.stands:
            return Receipt(number=effect.receipt)
        if self._world.ledger.is_under_way(place):
            raise OutcomeUnknown("a request is still under way")
        return None

    async def pause(self, most: float | None = None) -> None:
        """Wait for the service, at a place where the machine may die or stand still."""
        most = self._world.random.choice((0.0, 0.2, 0.2, self._world.plan.slowness)) if most is None else most
        await asyncio.sleep(self._world.random.uniform(0, most))
        await self._world.here().boundary("await in a step", self._world.plan.crashes_in_steps)

    def _mood(self, moods: list[Any], what: str, ctx: StepContext) -> Callable[..., Awaitable[Any]]:
        unruly = not self._world.calm and self._world.rolls(self._world.plan.unruly)
        mood: Callable[..., Awaitable[Any]] = self._world.random.choice(moods[1:]) if unruly else moods[0]
        self._world.simulation.note(f"    {self._world.label(ctx.saga_id)} {what}: {mood.__name__}")
        return mood

    def _tenure(self, saga_id: UUID) -> Tenure | None:
        driver = self._world.here().orchestrator.engine.drivers.get(saga_id)
        return None if driver is None else driver.tenure

    def _state(self, saga_id: UUID) -> State:
        return decode(self._world.database.rows[saga_id].state)

    def _check_ordered(self, ctx: StepContext, *works: Work) -> None:
        if not any((ctx.saga_id, work) in self._world.database.ordered for work in works):
            self._world.blame(f"{self._world.label(ctx.saga_id)}: {works[0]} begins, and no commit has ordered it")
        place = Place.called(ctx)
        spent = self._state(ctx.saga_id).spent.get(place.step_id, 0)
        if ctx.attempt > spent != place.spent:
            self._world.blame(f"{self._world.label(ctx.saga_id)}: {works[0]} has the key of what a rewind has undone")

    def _check_receipt(self, ctx: StepContext, out: Receipt | None) -> None:
        place = Place.called(ctx)
        if ctx.phase == "confirm":
            place = Place.now(ctx.saga_id, ctx.step_id, self._state(ctx.saga_id))
        known = self._world.ledger.effect(place).receipt
        if out is not None and out.number not in (known, 0):
            self._world.blame(f"{ctx.phase} {ctx.step_id} is given receipt {out.number}, and its receipt is {known}")


def heard_by(ctx: StepContext) -> int:
    """Return how many events the step has been given, as its key says."""
    last = ctx.idempotency_key.partition("~")[0].rpartition("/")[2]
    return int(last) if last.isdecimal() else 0
