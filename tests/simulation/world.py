"""One run: machines, callers and operators under the plan's faults; then calm, rest, and the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from unittest import mock
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from saga_orchestrator import SagaDefinition, SagaStatus
from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.kernel.step_status import Missed, Omitted
from saga_orchestrator.runtime import driver, engine, lease, worker
from saga_orchestrator.storage.rows import Head
from saga_orchestrator.testing.simulation import DeadlockError, Host, Simulation

from . import audit, sagas
from .answers import Counterpart
from .database import LineIsDeadError, WatchedStore
from .ledger import Ledger
from .machine import Machine
from .people import ASKED, PAUSE, People, Wish
from .plan import Plan
from .states import decode

_PATIENCE = 600
"""Virtual seconds after the last fault in which everything has to come to rest."""
_EXCUSES = (ConnectionError, TimeoutError, LineIsDeadError, DBAPIError)


class DefectError(RuntimeError):
    """What the engine raises where it has a defect."""


@dataclass(frozen=True)
class Report:
    """How a run went."""

    seed: int
    digest: str
    trace: list[str]
    violations: list[str]
    ends: list[str]
    boundaries: int


class World:
    """Everything that a run consists of."""

    def __init__(self, simulation: Simulation, plan: Plan, draw: Callable[[World], dict[str, SagaDefinition]]) -> None:
        self.simulation = simulation
        self.plan = plan
        self.random = simulation.random
        self.violations: list[str] = []
        self.ends: list[str] = []
        self.boundaries = 0
        self.defects: list[DefectError] = []
        """Those that nobody has been told of."""
        self.calm = False
        self._is_over = False
        self.ledger = Ledger(self.blame, self._is_aborted, self._patches, simulation.now)
        self.database = WatchedStore(self)
        self.people = People(self)
        self.counterpart = Counterpart(self)
        self.definitions = draw(self)
        self.machines: list[Machine] = []
        self._postponed = 0
        self._deeds_begun: list[tuple[Host, asyncio.Task[Any]]] = []

    # --- what the parts ask ---------------------------------------------------------------------------------

    def blame(self, what: str) -> None:
        """Note that something has happened that must never happen, as long as the world lasts."""
        if not self._is_over:
            self.simulation.note(f"!!! {what}")
            self.violations.append(what)

    def rolls(self, chance: float) -> bool:
        """Return whether a fault of this chance happens now."""
        return not self.calm and chance > 0 and self.random.random() < chance

    def is_the_chosen_boundary(self) -> bool:
        """Count a boundary, and return whether it is the one of `Plan.crash_at`."""
        self.boundaries += 1
        return self.boundaries - 1 == self.plan.crash_at

    def here(self) -> Machine:
        """Return the machine that the running code belongs to."""
        return next(machine for machine in self.machines if machine.host is Host.current())

    def graph(self, head: Head) -> Graph:
        return self.definitions[head.saga_name].graph.unfolded(decode(head.state).fans)

    def label(self, saga_id: UUID) -> str:
        head = self.database.rows.get(saga_id)
        return f"{'?' if head is None else head.aggregation_id}~{saga_id.hex[-4:]}"

    def _is_aborted(self, saga_id: UUID) -> bool:
        return any(row.step_id == "abort" for row in self.database.past.get(saga_id, ()))

    def _patches(self, saga_id: UUID) -> int:
        past = self.database.past.get(saga_id, ())
        return sum(row.step_id.startswith("rewind:") and row.input is not None for row in past)

    def take_leave(self, head: Head) -> None:
        """Audit a saga that is about to be deleted."""
        for what in audit.faults_of_one(self, head):
            self.blame(what)

    # --- the run --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live through it all."""
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        self.machines += [Machine(self, name) for name in "ABC"[: self.plan.machines]]
        for at, deed in sorted(self._deeds(), key=lambda pair: pair[0]):
            await self._live_until(at)
            deed()
        await self._live_until(self.plan.seconds)
        await self._come_to_rest()
        while self.plan.resolved and not self.violations and self._is_anything_stuck():
            await self.machines[0].host.spawn(self.people.resolve(self.machines[0]))
            await self._come_to_rest()
        await self._ask_for_results()
        await self._stop()
        for what in audit.faults_of(self):
            self.blame(what)
        if self.defects:
            self.blame(f"{len(self.defects)} defects of the engine were never told")
        self.ends = [head.status.value for head in self.database.rows.values()]
        self._is_over = True

    async def _live_until(self, at: float) -> None:
        while not self.violations and (left := at - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 1.0))

    async def _come_to_rest(self) -> None:
        """Let no more faults happen; wait until every machine is up, and every saga over or stuck."""
        self.simulation.note("CALM")
        self.calm = True
        for machine in self.machines:
            machine.host.thaw()
        until = asyncio.get_running_loop().time() + _PATIENCE
        while not self.violations and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(1.0)
            if self._is_at_rest():
                return
            if any(head.awaiting == PAUSE for head in self.database.rows.values()):
                self.do(self.people.let_go)
            if any((head.awaiting or "").startswith(ASKED) for head in self.database.rows.values()):
                self.do(partial(self.people.decide, asked=True))
        self.blame(f"not everything has come to rest within {_PATIENCE} seconds after the last fault")

    def _is_anything_stuck(self) -> bool:
        return any(head.status is SagaStatus.STUCK for head in self.database.rows.values())

    def _is_at_rest(self) -> bool:
        """Return whether every machine is up, nobody who lives waits for an answer, and no saga goes on by itself.

        What a caller has begun goes on when he has lost patience, and some have put off what they want.
        """
        waiting = self._postponed or any(host.is_running and not task.done() for host, task in self._deeds_begun)
        if waiting or not all(machine.is_up and machine.is_idle for machine in self.machines):
            return False
        return all(self._rests(head) for head in self.database.rows.values())

    def _rests(self, head: Head) -> bool:
        is_done = head.status.is_terminal or self.is_left_to_people(head)
        return is_done and decode(head.state).action is None

    def is_left_to_people(self, head: Head) -> bool:
        """Return whether a saga is stuck, or waits for a child that is."""
        born = [child for child in self.database.rows.values() if child.parent_id == head.id]
        waits = head.awaiting == "event:saga.ended" and any(map(self.is_left_to_people, born))
        return head.status is SagaStatus.STUCK or waits

    async def _stop(self) -> None:
        stopping = [machine.host.spawn(machine.stop()) for machine in self.machines]
        _, waiting = await asyncio.wait(stopping, timeout=_PATIENCE)
        if waiting:
            self.blame(f"{len(waiting)} machines do not stop when they are asked to")

    async def _ask_for_results(self) -> None:
        """Hear what the orchestrator says of each saga: what is stored, and no less than everybody's output."""
        for saga_id, head in self.database.rows.items():
            is_at_rest = head.status.is_terminal or head.status is SagaStatus.STUCK
            if is_at_rest and not self.violations:
                result = await self.machines[0].host.spawn(self.machines[0].orchestrator.result(saga_id))
                state = decode(head.state)
                ran = {i for i in self.graph(head).nodes if not isinstance(state.of(i), Omitted | Missed)}
                told = {i for i in ran if not self.definitions[head.saga_name].step(i).is_finish}
                whole = head.status is not SagaStatus.COMPLETED or set(result.outputs) == told
                if result.status is not self.database.rows[saga_id].status or not whole:
                    self.blame(f"{self.label(saga_id)} is {head.status}, and its result {result}")

    # --- what people do -------------------------------------------------------------------------------------

    def _deeds(self) -> Iterator[tuple[float, Callable[[], None]]]:
        """Yield who does what when, drawn beforehand."""
        draw, plan = self.random, self.plan
        for number in range(plan.sagas):
            yield from self._starts(number)
        for _ in range(plan.orders):
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.order)
        for _ in range(plan.notifications):
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.notify)
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.look)
        for _ in range(plan.shutdowns):
            yield draw.uniform(1, plan.seconds), lambda: draw.choice(self.machines).shut_down()
        for _ in range(plan.holds):
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.hold)
        for _ in range(plan.rewinds):
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.go_back)
        for _ in range(plan.purges):
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.purge)
        for _ in range(plan.actions):
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.act)
        for _ in range(plan.decisions):
            yield draw.uniform(1, plan.seconds), lambda: self.do(self.people.decide)

    def _starts(self, number: int) -> Iterator[tuple[float, Callable[[], None]]]:
        draw = self.random
        name = draw.choice(sorted(self.definitions))
        aggregate = f"a{draw.randrange(number + 1)}" if draw.random() < 0.3 else f"a{number}"
        wish = Wish(name, aggregate, draw.choice((None, f"k{number}")))
        first = draw.uniform(0, self.plan.seconds * 0.6)
        for _ in range(draw.choice((1, 1, 2)) if wish.key else 1):
            yield first + draw.choice((0, draw.uniform(0, 5))), lambda: self.do(self.people.start, wish, fickle=True)

    def later(self, deed: Callable[..., Any], *arguments: Any) -> None:
        """Have somebody do it on some machine a second from now."""
        self.at(1.0, self.do, deed, *arguments)

    def at(self, delay: float, then: Callable[..., None], *arguments: Any) -> None:
        """Call something after a while, outside of all machines; nothing is at rest before."""

        def call() -> None:
            self._postponed -= 1
            then(*arguments)

        self._postponed += 1
        asyncio.get_running_loop().call_later(delay, call, context=Context())

    def do(self, deed: Callable[..., Any], *arguments: Any, fickle: bool = False) -> None:
        """Have somebody do something on a machine, as soon as one is up; the fickle lose patience over it."""
        if not (up := [machine for machine in self.machines if machine.is_up]):
            self.later(deed, *arguments)
            return
        machine = self.random.choice(up)
        task = machine.host.spawn(deed(machine, *arguments))
        self._deeds_begun.append((machine.host, task))
        if fickle and self.rolls(self.plan.cancelled_callers):
            asyncio.get_running_loop().call_later(self.random.uniform(0, 3), task.cancel)


class Witness:
    """Stands in for the log of a module: what the engine calls a defect of its own is one."""

    def __init__(self, world: World) -> None:
        self._world = world

    def opt(self, *, exception: BaseException) -> Witness:
        if isinstance(exception, DefectError):
            self._world.defects.remove(exception)
        elif not isinstance(exception, _EXCUSES):
            self._world.blame(f"the engine caught {exception!r}")
        return self

    def error(self, message: str, *arguments: object) -> None:
        self._world.simulation.note(f"log: {message.rsplit(':', maxsplit=1)[-1].strip()}")

    warning = info = debug = error

    def fail(self, error: BaseException, what: str, *_: object) -> None:
        self.opt(exception=error).error(what)


@contextmanager
def witnessed(world: World) -> Iterator[None]:
    """Have the engine's log written into the trace."""
    with ExitStack() as patches:
        for module in (driver, engine, lease, worker):
            patches.enter_context(mock.patch.object(module, "logger", Witness(world)))
        patches.enter_context(mock.patch.object(engine, "log_failure", Witness(world).fail))
        patches.enter_context(mock.patch.object(driver, "fold", defective(world, driver.fold)))
        yield


def defective(world: World, right: Callable[..., Any]) -> Callable[..., Any]:
    """Return what decides, and fails now and then."""

    def fold(*arguments: Any) -> Any:
        if world.rolls(world.plan.defects):
            world.simulation.note("DEFECT")
            world.here().line.faults += 1
            world.defects.append(DefectError("a defect"))
            raise world.defects[-1]
        return right(*arguments)

    return fold


def drawn_definitions(world: World) -> dict[str, SagaDefinition]:
    """Draw the definitions of a run."""
    random = Random(f"{world.simulation.seed}/sagas")
    drawn = {f"d{number}": sagas.drawn(world, random) for number in range(random.randint(1, 3))}
    return {**drawn, **sagas.drawn_family(world, random)} if world.plan.families else drawn


def simulate(
    seed: int, plan: Plan | None = None, draw: Callable[[World], dict[str, SagaDefinition]] = drawn_definitions
) -> Report:
    """Live through the world of a seed, and report."""
    simulation = Simulation(seed)
    world = World(simulation, plan or Plan.drawn(Random(f"{seed}/plan")), draw)
    with witnessed(world):
        try:
            simulation.run(world.run)
        except DeadlockError as error:
            world.violations.append(str(error))
    return Report(seed, simulation.digest, simulation.trace, world.violations, world.ends, world.boundaries)
