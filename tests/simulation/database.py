"""The shared store, which checks every write as it happens, and the bad line by which each machine reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from saga_orchestrator.definition.graph import Graph, StepKind
from saga_orchestrator.kernel.effects import Record, Work
from saga_orchestrator.kernel.laws import broken_by
from saga_orchestrator.kernel.projection import awaiting, outstanding, status_of
from saga_orchestrator.kernel.state import SagaStatus, State
from saga_orchestrator.kernel.step_status import Running, Skipped, Succeeded
from saga_orchestrator.kernel.undo_status import Undone
from saga_orchestrator.runtime.claims import CUT_OFF
from saga_orchestrator.storage.database_errors import sqlstate_of
from saga_orchestrator.storage.retention import Bygone
from saga_orchestrator.storage.rows import (
    Birth,
    Claimable,
    Head,
    HistoryRow,
    Judge,
    Move,
    SagaFilter,
    Write,
    Written,
)
from saga_orchestrator.testing.memory import MemoryStore, MemoryTransaction
from saga_orchestrator.testing.memory_inbox import MemoryInbox

from .ailments import DENIED, SILENCE, a_sick_database, is_quarantined
from .ledger import CONFIRM, Place
from .plan import LEASE
from .states import decode

if TYPE_CHECKING:
    from .machine import Machine
    from .world import World

T = TypeVar("T")
IDLE = ("next_due", "now", "heads", "head", "due")
"""Calls that change nothing and come in crowds: a crash there teaches little, so it is rarer."""


CHILD = "ChildSaga"
"""What a step is called that has a child. It is in no participant's books."""
UNBOOKED = (CHILD, "Commit")
KNOWN_ERRORS = (
    "child saga ",
    "can only go forward",
    "still active for aggregation_id",
    "choose answered 'nowhere'",
    "rejected by ",
    "it did not act",
    "it may have acted",
    "it may have undone",
    "it did undo",
    "a request is still under way",
    "this was cancelled before it was done",
    "asked to be retried",
    "timed out",
    " in time",
    "CancelledError()",
    "returned str, not Receipt",
    "is of class InCents, and would read back as Receipt",
    "probe: NOT_DONE",
    "aborted while in flight",
    "was lost while the attempt was in flight",
    "owners in a row were lost",
    "close_all answered ",
    "the hook failed",
    " is not dirty",
    " while CLOSE_ALL was under way",
    " while ALERT_HUMAN was under way",
    "the call of the hook was cut off",
    "did a part, and its attempt is over",
    "probe: not done, and yet a part of it is",
)
TIMED_OUT = "the attempt timed out"
CLOCK_ERROR = timedelta(seconds=1)


class LineIsDeadError(RuntimeError):
    """The machine at this end of the line is gone; nobody hears this."""


class WatchedStore(MemoryStore):
    """Sagas in memory; each write is checked against the kernel's laws, the row's own constraints, and the ledger."""

    def __init__(self, world: World) -> None:
        super().__init__(world.simulation.now)
        self._world = world
        self.ordered: set[tuple[UUID, Work]] = set()
        self.purged: set[UUID] = set()

    def _insert(self, birth: Birth) -> Written:
        written = super()._insert(birth)
        if written is Written.DONE:
            self._check(birth.head.id)
        return written

    def _move(self, head: Head, move: Move) -> None:
        super()._move(head, move)
        taken = move.ownership is not None and move.ownership.lease_owner is not None
        if taken and move.ownership.token == head.step_execution_token:
            self._blame(head.id, "a new owner has the old execution token")
        if self.rows[head.id].revision != head.revision + 1:
            self._blame(head.id, f"revision {head.revision} is followed by {self.rows[head.id].revision}")
        for row in move.history:
            self._check_error(head, row)
        if head.status is SagaStatus.COMPLETED and not self.rows[head.id].status.is_terminal:
            self._check_window(head)
        if self._world.plan.spares_owners and is_quarantined(self.rows[head.id]):
            self._blame(head.id, f"it is quarantined, and its owners are well: {self.rows[head.id].last_error}")
        self._check(head.id)

    def _delete(self, saga_id: UUID) -> None:
        """Let a saga go that is over, and of which all is told: nobody can ask for it afterwards."""
        head = self.rows[saga_id]
        active = {row.id for row in self.rows.values() if not row.status.is_terminal}
        if saga_id in active or head.parent_id in active or head.deadline_at is not None:
            self._blame(saga_id, f"it is {head.status.value}, and deleted while somebody needs it")
        if self._is_window_open(head):
            self._blame(saga_id, "it is deleted, and may still be undone")
        self._world.take_leave(head)
        super()._delete(saga_id)
        self.purged.add(saga_id)
        self._world.simulation.note(f"{self._world.label(saga_id)} is deleted")

    def _check_error(self, head: Head, row: Record) -> None:
        """Object to an error that nobody in this world has made, and to a timeout before its time."""
        if row.error is not None and not any(known in row.error for known in KNOWN_ERRORS):
            self._blame(head.id, f"{row.step_id} is said to have failed by {row.error}")
        if row.error == TIMED_OUT and isinstance(decode(head.state).of(row.step_id), Running):
            timeout = self._world.graph(head).nodes[row.step_id].timeout
            began = self._world.ledger.began.get((head.id, row.step_id, row.attempt))
            took = None if began is None else self._world.simulation.now() - began
            if took is None or took < timeout - CLOCK_ERROR:
                self._blame(head.id, f"{row.step_id} is said to have timed out, and had begun {took} before")

    def _check_window(self, head: Head) -> None:
        """Object to a saga that goes back after its end, where its definition or the time forbids that."""
        if not self._is_window_open(head) and head.parent_id is None:
            window = self._world.graph(head).undo_window
            self._blame(
                head.id, f"it had COMPLETED at {head.finished_at}, with an undo window of {window}, and goes back"
            )

    def _is_window_open(self, head: Head) -> bool:
        window, ended = self._world.graph(head).undo_window, head.finished_at
        is_done = head.status is SagaStatus.COMPLETED and window is not None and ended is not None
        return is_done and self._world.simulation.now() <= ended + window

    def _check(self, saga_id: UUID) -> None:
        head = self.rows[saga_id]
        graph = self._world.graph(head)
        state = decode(head.state)
        self.ordered |= {(saga_id, work) for work in outstanding(state)}
        steps = " ".join(f"{i}:{type(s).__name__}" for i, s in sorted(state.all()))
        label = self._world.label(saga_id)
        self._world.simulation.note(
            f"{label} r{head.revision} is {head.status.value} [{steps}] {head.last_error or ''}"
        )
        for found in (*broken_by(graph, state), *self._strains(graph, head, state), *self._gaps(head, state)):
            self._blame(saga_id, found)
        for found in self._false_claims(graph, saga_id, state):
            self._blame(saga_id, found)

    def _strains(self, graph: Graph, head: Head, state: State) -> Iterable[str]:
        """Yield what strains a row, where no hook is called about the saga, or is to be."""
        is_to_act = head.status is SagaStatus.FAILED and self._world.definitions[head.saga_name].failure.calls
        if state.action is None and not is_to_act:
            yield from _strains(graph, head, state)

    def _gaps(self, head: Head, state: State) -> Iterable[str]:
        numbers = [row.seq for row in self.past[head.id]]
        if numbers != list(range(state.recorded)):
            yield f"the history has rows {numbers}, and the state says {state.recorded}"

    def _false_claims(self, graph: Graph, saga_id: UUID, state: State) -> Iterable[str]:
        for step_id, status in state.all():
            effect = self._world.ledger.effect(Place.now(saga_id, step_id, state))
            if isinstance(status, Undone) and effect.stands:
                yield f"{step_id} is said to be undone, and stands"
            if isinstance(status, Succeeded) and not effect.receipt and is_booked(graph, state, step_id):
                yield f"{step_id} is said to have acted, and has not"

    def _blame(self, saga_id: UUID, what: str) -> None:
        self._world.blame(f"{self._world.label(saga_id)}: {what}")


def _strains(graph: Graph, head: Head, state: State) -> Iterable[str]:
    """Yield what a row says that its state does not, and what a database's constraints would refuse."""
    status = status_of(graph, state)
    if head.status is not status:
        yield f"the row says {head.status}, and its state {status}"
    if status.is_terminal and (head.lease_owner, head.deadline_at, head.step_execution_token) != (None, None, None):
        yield "it is over, and yet owned or due"
    if not status.is_terminal and head.deadline_at is None and head.awaiting is None:
        yield "it is active, and neither due nor awaiting anything"
    if outstanding(state) and head.deadline_at is None:
        yield "it has work in flight, and nobody will ever look whether its owner lives"
    is_cut_off = status.is_terminal and (head.awaiting or "").startswith(CUT_OFF)
    if (
        head.lease_owner is None
        and not outstanding(state)
        and not is_cut_off
        and head.awaiting != awaiting(graph, state)
    ):
        yield f"the row awaits {head.awaiting}, and its state {awaiting(graph, state)}"
    if status is SagaStatus.STUCK and head.lease_owner is not None:
        yield "it is stuck, and still owned"


def is_booked(graph: Graph, state: State, step_id: str) -> bool:
    """Return whether a step that has come to a good end stands in a participant's books."""
    node, confirmed = graph.nodes[step_id], step_id.removesuffix(CONFIRM)
    if node.kind is StepKind.READ_ONLY or node.name in UNBOOKED:
        return False
    return confirmed == step_id or isinstance(state.of(confirmed), Succeeded) or state.of(confirmed) == Skipped(True)


class LineToInbox:
    """The events' part of a line."""

    def __init__(self, inbox: MemoryInbox, ask: Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]) -> None:
        self._inbox, self._ask = inbox, ask

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._inbox, name)
        return lambda *given: self._ask(name, lambda: operation(*given))


class Line:
    """One machine's connection to the store: slow, refused, cut off after the deed, or the last that it ever used."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._world = machine.world
        self._host = machine.host
        self._store = machine.world.database
        self.faults = 0

    async def write(self, batch: Sequence[Write]) -> list[Written]:
        answers = await self.ask("write", lambda: self._store.write(batch))
        self._world.simulation.note(f"wrote {' '.join(answer.value for answer in answers)}")
        return answers

    async def advance(self, saga_id: UUID, judge: Judge) -> tuple[Head, Move | None]:
        return await self.ask("advance", lambda: self._store.advance(saga_id, judge))

    async def claim(self, claimable: Claimable, limit: int, judge: Judge) -> list[tuple[Head, Move]]:
        return await self.ask("claim", lambda: self._store.claim(claimable, limit, judge))

    async def renew(self, owner: str, saga_ids: Iterable[UUID], until: datetime) -> dict[UUID, int]:
        chosen = list(saga_ids)
        return await self.ask("renew", lambda: self._store.renew(owner, chosen, until))

    async def disown(self, owner: str, tokens: Mapping[UUID, UUID]) -> set[UUID]:
        return await self.ask("disown", lambda: self._store.disown(owner, tokens))

    async def head(self, saga_id: UUID) -> Head | None:
        return await self.ask("head", lambda: self._store.head(saga_id))

    async def heads(self, wanted: SagaFilter, limit: int, before: UUID | None) -> list[Head]:
        return await self.ask("heads", lambda: self._store.heads(wanted, limit, before))

    async def history(self, saga_ids: Iterable[UUID]) -> dict[UUID, list[HistoryRow]]:
        chosen = list(saga_ids)
        return await self.ask("history", lambda: self._store.history(chosen))

    async def rival(self, birth: Birth) -> Head | None:
        return await self.ask("rival", lambda: self._store.rival(birth))

    async def started(self, saga_name: str, idempotency_key: str) -> Head | None:
        return await self.ask("started", lambda: self._store.started(saga_name, idempotency_key))

    @asynccontextmanager
    async def transaction(self, seconds: float | None = None) -> AsyncIterator[MemoryTransaction]:
        await self.ask("begin", self._store.now)
        opened = MemoryTransaction(self._store.advance)
        yield opened
        await self.ask("commit", opened.commit)

    async def show(self, owner: str, progress: Mapping[UUID, str]) -> None:
        shown = dict(progress)
        return await self.ask("show", lambda: self._store.show(owner, shown))

    async def purge(self, bygone: Bygone, limit: int) -> int:
        return await self.ask("purge", lambda: self._store.purge(bygone, limit))

    async def next_due(self, claimable: Claimable) -> datetime | None:
        return await self.ask("next_due", lambda: self._store.next_due(claimable))

    async def now(self, session: Any = None) -> datetime:
        return await self.ask("now", self._store.now)

    async def add(self, session: Any, birth: Birth) -> tuple[Head | None] | None:
        """Insert a saga, in a step's transaction by the connection that it has."""
        if isinstance(session, list):
            return await self._store.add(session, birth)
        return await self.ask("add", lambda: self._store.add(session, birth))

    @property
    def inbox(self) -> LineToInbox:
        return LineToInbox(self._store.inbox, self.ask)

    async def aclose(self) -> None:
        return None

    async def ask(self, name: str, operation: Callable[[], Awaitable[T]]) -> T:
        if self._machine.host is not self._host or not self._host.is_running:
            raise LineIsDeadError
        await self._suffer(name, self._world.plan.refused_calls, "refused")
        await self._ail(name)
        answer = await operation()
        idle = name == "claim" and not answer
        await self._suffer("next_due" if idle else name, self._world.plan.lost_answers, "did it, answer lost")
        return answer

    async def _ail(self, name: str) -> None:
        """Perhaps fail for a reason that is the database's own, or say nothing until the call's time is over."""
        plan, world = self._world.plan, self._world
        is_spared = name == "renew" and plan.spares_owners
        if not is_spared and world.rolls(plan.sick_calls):
            error = a_sick_database(world.random)
            if name == "commit" and sqlstate_of(error) == DENIED:
                return  # nothing is written by then: what denies a commit is a trigger of the application's own
            world.simulation.note(f"{name}: {error.orig}")
            raise error
        if world.rolls(plan.silent_calls):
            self.faults += 1
            world.simulation.note(f"{name}: silence")
            await asyncio.sleep(SILENCE)
            raise TimeoutError(f"{name}: the database has not answered in time")

    async def _suffer(self, name: str, errors: float, how: str) -> None:
        """Take some time; then perhaps crash, freeze or fail, as the plan says."""
        plan, rolls = self._world.plan, self._world.rolls
        rarer = 0.1 if name in IDLE else 1.0
        if rolls(plan.slow_calls) or (name == "renew" and rolls(plan.slow_renewals)):
            self.faults += 1
            await asyncio.sleep(self._world.random.uniform(0.1, 1.2) * LEASE)
        await asyncio.sleep(self._world.random.choice((0.0, 0.0, 0.001, self._world.random.uniform(0, 0.05))))
        await self._machine.boundary(f"{name} {how}", plan.crashes_at_store * rarer, counted=name not in IDLE)
        if rolls(errors):
            self.faults += 1
            self._world.simulation.note(f"{name}: {how}")
            raise ConnectionError(f"{name}: {how}")
