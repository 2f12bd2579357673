"""Steps that ask and wait, and the counterpart that answers them: at once or late, twice or more, from any machine.

The counterpart answers every question that was ever asked, under an id of the question's own, again and again until a
machine has said what has become of the answer. So a saga that never comes to rest has lost one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from saga_orchestrator import Event, SagaError, SignalResult, StepContext, WaitFor

from .database import LineIsDeadError
from .ledger import Place
from .participants import Acting, Receipt, Request

if TYPE_CHECKING:
    from .machine import Machine
    from .world import World

_AGAIN = 4.0
"""Seconds until the counterpart says it again, if it has not heard that it was understood."""


@dataclass(frozen=True)
class Manner:
    """How a step waits."""

    correlated: bool
    timeout: timedelta | None
    resumes: bool
    undo_asks: bool

    @classmethod
    def drawn(cls, random: Random) -> Manner:
        """Draw how a step waits."""
        timeout = random.choice((None, None, timedelta(seconds=random.choice((2, 6, 20)))))
        return cls(random.random() < 0.5, timeout, random.random() < 0.5, random.random() < 0.4)


class Asking(Acting):
    """A step that acts by asking, and returns when it is answered; its undo may ask, too."""

    def __init__(self, world: World, manner: Manner) -> None:
        super().__init__(world)
        self._world, self._manner = world, manner

    async def execute(self, inp: Request, ctx: StepContext) -> Receipt | WaitFor:  # type: ignore[override]
        done = await self.services.execute(inp, ctx)
        return self._ask(ctx, "do") if isinstance(done, Receipt) else done

    async def on_event(self, inp: Request, event: Event[Any], ctx: StepContext) -> Receipt | None:
        self._check(event, ctx)
        if ctx.phase == "compensate":
            await self.services.compensate(inp, None, ctx)
            return None
        return await self.services.execute(inp, ctx)

    async def compensate(self, inp: Request, out: Receipt | None, ctx: StepContext) -> WaitFor | None:
        if self._manner.undo_asks:
            await self.services.pause()
            return self._ask(ctx, "undo")
        await self.services.compensate(inp, out, ctx)
        return None

    def _check(self, event: Event[Any], ctx: StepContext) -> None:
        """Object to an event that was meant for another wait."""
        place = Place.called(ctx)
        if self._manner.correlated and event.correlation_id not in (None, correlation_of(place)):
            label = self._world.label(place.saga_id)
            self._world.blame(f"{label}: {place.step_id} is given the answer to {event.correlation_id}")

    def _ask(self, ctx: StepContext, what: str) -> WaitFor:
        manner, place = self._manner, Place.called(ctx)
        self._world.counterpart.ask(place, ctx.aggregation_id, what)
        correlation = correlation_of(place) if manner.correlated else None
        on_timeout: Any = "resume" if manner.resumes else "fail"
        return WaitFor(
            type_of(ctx.step_id, what), correlation_id=correlation, timeout=manner.timeout, on_timeout=on_timeout
        )


def type_of(step_id: str, what: str) -> str:
    """Return the type of the answer to a step's question."""
    return f"{what}:{step_id}"


def correlation_of(place: Place) -> str:
    """Return what a question and its answer have in common."""
    return f"{place.saga_id}:{place.step_id}{place.life}"


class Counterpart:
    """Whoever the steps ask."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: set[str] = set()
        self._settled: set[tuple[Place, str]] = set()
        self._rounds: dict[tuple[Place, str], int] = {}
        """How often somebody has asked again who had an answer: it may have come when the wait for it was over."""

    def ask(self, place: Place, aggregate: str, what: str) -> None:
        """Take a question; answer it at once, which may be before the saga waits for it, or later."""
        question = f"{what}:{correlation_of(place)}"
        if question not in self._asked or (place, what) in self._settled:
            self._asked.add(question)
            self._rounds[place, what] = self._rounds.get((place, what), 0) + ((place, what) in self._settled)
            self._settled.discard((place, what))
            delay = self._world.random.choice((0.0, 0.0, self._world.random.uniform(0, 10)))
            self._world.at(delay, self._remind, place, aggregate, what)

    def _remind(self, place: Place, aggregate: str, what: str) -> None:
        """Say it on some machine, and again later unless it was understood by then."""
        if (place, what) not in self._settled:
            self._world.at(_AGAIN, self._remind, place, aggregate, what)
            self._world.do(self._answer, place, aggregate, what)

    async def _answer(self, machine: Machine, place: Place, aggregate: str, what: str) -> None:
        how: dict[str, Any] = self._world.random.choice(
            ({}, {"saga_id": place.saga_id}, {"saga_id": place.saga_id}, {"aggregation_id": aggregate})
        )
        event_id = f"{what}:{place.saga_id}{place.life}:{self._rounds.get((place, what), 0)}"
        label = f"answer {what} {self._world.label(place.saga_id)} {place.step_id}{place.life}"
        try:
            result = await machine.orchestrator.signal(
                type_of(place.step_id, what),
                correlation_id=correlation_of(place),
                event_id=event_id,
                **how,
            )
        except (SagaError, ConnectionError, LineIsDeadError, DBAPIError, TimeoutError) as error:
            self._world.simulation.note(f"{label}: {type(error).__name__}")
            return
        self._world.simulation.note(f"{label}: {result.value}")
        if self._is_settled(result, place, how):
            self._settled.add((place, what))

    def _is_settled(self, result: SignalResult, place: Place, how: dict[str, Any]) -> bool:
        """Return whether nobody can be waiting for it any more, or whoever is will be given it.

        An aggregate may have another saga by now, and whoever waits without a correlation is not found by one.
        """
        head = self._world.database.rows.get(place.saga_id)
        return "saga_id" in how or result is SignalResult.APPLIED or head is None or head.status.is_terminal
