"""Callers who start sagas, repeat themselves and lose patience; operators who give orders at any moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from saga_orchestrator import (
    ActiveSagaAlreadyExistsError,
    SagaAdmin,
    SagaDefinitionError,
    SagaError,
    SagaNotFoundError,
    SagaStatus,
)
from saga_orchestrator.runtime.reading import open_waits

from .database import LineIsDeadError
from .ledger import HookError
from .states import decode

if TYPE_CHECKING:
    from .machine import Machine
    from .world import World

ACTOR = {"actor": "ann", "reason": "simulation"}
ORDERS = ("cancel", "abort", "retry_step", "compensate_step", "skip_step", "skip_done_step", "waive_step")
HOLDS = ("pause", "stop", "resume", "step", "step")
RETURNS = ("rewind", "rewind", "rewind_and_patch", "compensate_step")
ACTIONS = ("REVERT", "CLOSE_ALL", "CLOSE_ALL", "ALERT_HUMAN", "NOOP")
PAUSE = "pause"
ASKED = "event:saga.commit"
_BROKEN = (LineIsDeadError, HookError, ConnectionError, TimeoutError, DBAPIError)
_EXPECTED = (ActiveSagaAlreadyExistsError, SagaNotFoundError, SagaError, *_BROKEN)
_ROUNDS = 20
_PATIENCE = 5
"""How often a stuck saga is seen to until what stands of it is accepted: a child past its pivot is never undone."""


@dataclass(frozen=True)
class Wish:
    """A saga that somebody wants; without a key a start whose answer was lost cannot be repeated."""

    saga_name: str
    aggregate: str
    key: str | None


class People:
    """Everybody outside who wants something from the machines."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.promised: dict[UUID, Wish] = {}
        self._tries = Counter[UUID]()
        self._old_tokens: list[tuple[UUID, UUID]] = []

    # --- callers --------------------------------------------------------------------------------------------

    async def start(self, machine: Machine, wish: Wish) -> None:
        """Start a saga; if that fails for no good reason and can be repeated safely, repeat it."""
        for _ in range(3 if wish.key else 1):
            with self._shrugging(f"start {wish.aggregate}"):
                try:
                    saga_id = await self._start(machine, wish)
                except SagaDefinitionError:  # an old release is up there: go on to another machine, once
                    self._world.later(self.start, wish)
                else:
                    self._promised(saga_id, wish)
                return

    async def _start(self, machine: Machine, wish: Wish) -> UUID:
        return await machine.orchestrator.start(
            saga_name=wish.saga_name,
            initial_data={"aggregate": wish.aggregate},
            aggregation_id=wish.aggregate,
            idempotency_key=wish.key,
        )

    def _promised(self, saga_id: UUID, wish: Wish) -> None:
        self._world.simulation.note(f"start {wish.aggregate}: returned {self._world.label(saga_id)}")
        self.promised[saga_id] = wish
        there = self.promised.keys() - self._world.database.purged  # whose key is gone starts another saga
        same = {found for found in there if self.promised[found].key == wish.key is not None}
        if wish.key is not None and len(same) > 1:
            self._world.blame(f"starts under the key {wish.key} returned {len(same)} sagas")

    async def look(self, machine: Machine) -> None:
        """Poke the machine as a cron job would, or a person who is impatient about one saga."""
        with self._shrugging("look"):
            if (saga_id := self._any_saga()) is None or self._world.rolls(0.5):
                await machine.orchestrator.run_due(limit=3)
            else:
                await machine.orchestrator.resume(saga_id)

    async def notify(self, machine: Machine) -> None:
        """End a wait: with its token, with the token of a wait that is over, or with one that never was."""
        saga_id = self._any_saga()
        if saga_id is None:
            return
        with self._shrugging("notify"):
            snapshot = await machine.orchestrator.get_snapshot(saga_id)
            fresh = (saga_id, snapshot.step_execution_token)
            stale = [old for old in self._old_tokens if old != fresh and old[1] not in self._current(old[0])]
            self._old_tokens += [fresh] if fresh[1] is not None else []
            chosen = self._world.random.choice([fresh, *stale])
            if chosen[1] is None:
                return
            accepted = await machine.orchestrator.notify(saga_id=chosen[0], token=chosen[1], event={"by": "ann"})
            self._world.simulation.note(f"notify {self._world.label(chosen[0])}: {accepted}")
            if accepted and chosen in stale:
                self._world.blame(f"{self._world.label(saga_id)}: a stale token was accepted")

    def _current(self, saga_id: UUID) -> set[UUID | None]:
        """Return the tokens that are good now: the row's, and those of its open waits."""
        if (head := self._world.database.rows.get(saga_id)) is None:
            return set()
        waits = open_waits(saga_id, decode(head.state))
        return {head.step_execution_token, *(wait.token for wait in waits)}

    # --- operators ------------------------------------------------------------------------------------------

    async def order(self, machine: Machine, orders: Sequence[str] = ORDERS, to: Sequence[UUID] = ()) -> None:
        """Give some order to some saga, of these if there are any, whether it makes sense or not."""
        saga_id = self._world.random.choice(sorted(to)) if to else self._any_saga()
        if saga_id is None:
            return
        name = self._world.random.choice(orders)
        with self._shrugging(f"{name} {self._world.label(saga_id)}"):
            await self._give(machine.admin, saga_id, name)
            self._world.simulation.note(f"{name} {self._world.label(saga_id)}: done")

    async def _give(self, admin: SagaAdmin[Any], saga_id: UUID, name: str) -> None:
        row = self._world.database.rows[saga_id]
        step_id = self._world.random.choice(self._world.graph(row).order)
        orders: dict[str, Callable[[], Awaitable[None]]] = {
            "skip_step": lambda: admin.skip_step(saga_id, step_id=step_id, **ACTOR),
            "skip_done_step": lambda: admin.skip_step(saga_id, {"number": 0}, **ACTOR),
            "waive_step": lambda: admin.waive_step(saga_id, step_id, **ACTOR),
            "stop": lambda: admin.pause(saga_id, step_id, **ACTOR),
            "rewind": lambda: admin.rewind(saga_id, step_id, **ACTOR),
            "rewind_and_patch": lambda: admin.rewind(saga_id, step_id, patch=self._another_wish(), **ACTOR),
        }
        await (orders[name]() if name in orders else getattr(admin, name)(saga_id, **ACTOR))

    async def hold(self, machine: Machine) -> None:
        """Pause some saga, or let it go on, or let it take one step."""
        await self.order(machine, HOLDS)

    async def go_back(self, machine: Machine) -> None:
        """Have some saga go back to some step of it, perhaps with another wish; or undo one, also after its end."""
        over = [saga_id for saga_id, head in self._world.database.rows.items() if head.status is SagaStatus.COMPLETED]
        await self.order(machine, RETURNS, over if self._world.random.random() < 0.4 else ())

    def _another_wish(self) -> dict[str, Any]:
        return {"aggregate": f"another {self._world.random.randrange(10**6)}"}

    async def decide(self, machine: Machine, *, asked: bool = False) -> None:
        """Commit some saga or reject it, whether it waits for that or not; or each that has asked."""
        rows = self._world.database.rows
        waiting = [saga_id for saga_id, head in rows.items() if (head.awaiting or "").startswith(ASKED)]
        any_saga = self._any_saga()
        for saga_id in waiting if asked else [any_saga] if any_saga is not None else []:
            decide = self._world.random.choice((machine.orchestrator.commit, machine.orchestrator.reject))
            with self._shrugging(f"{decide.__name__} {self._world.label(saga_id)}"):
                await decide(saga_id, **ACTOR)
                self._world.simulation.note(f"{decide.__name__} {self._world.label(saga_id)}: done")

    async def purge(self, machine: Machine) -> None:
        """Delete what has been over for a while."""
        age = timedelta(seconds=self._world.random.choice((0, 2, 10)))
        over = self._world.random.choice(((), (SagaStatus.FAILED,)))
        with self._shrugging("purge"):
            statuses = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, *over)
            gone = await machine.admin.purge(older_than=age, statuses=statuses, limit=10, **ACTOR)
            self._world.simulation.note(f"purge: {gone} are gone")

    async def act(self, machine: Machine) -> None:
        """Have two people do something about one failed saga, at the same time and on any machines."""
        rows = self._world.database.rows.items()
        failed = [saga_id for saga_id, head in rows if head.status in (SagaStatus.FAILED, SagaStatus.STUCK)]
        if failed:
            chosen = self._world.random.choice(failed)
            for _ in range(2):
                self._world.do(self._act, chosen, self._world.random.choice(ACTIONS))

    async def _act(self, machine: Machine, saga_id: UUID, action: str) -> None:
        what = f"{action} {self._world.label(saga_id)}"
        with self._shrugging(what):
            result = await machine.admin.execute_compensation(saga_id, action, **ACTOR)
            self._world.simulation.note(f"{what}: {result.success}, {result.message}")

    async def let_go(self, machine: Machine) -> None:
        """Resume every saga that rests in a pause."""
        for saga_id, head in list(self._world.database.rows.items()):
            if head.awaiting == PAUSE:
                with self._shrugging(f"resume {self._world.label(saga_id)}"):
                    await self._give(machine.admin, saga_id, "resume")
                    self._world.simulation.note(f"resume {self._world.label(saga_id)}: done")

    async def resolve(self, machine: Machine) -> None:
        """Bring every stuck saga to an end: go on if that is allowed, else go back, else accept what stands."""
        for saga_id, head in list(self._world.database.rows.items()):
            for _ in range(_ROUNDS):
                await self.let_go(machine)
                if self._world.database.rows[saga_id].status is not SagaStatus.STUCK:
                    break
                await self._resolve(machine, saga_id)
            else:
                self._world.blame(f"{self._world.label(saga_id)}: no order brings it to an end; {head.last_error}")

    async def _resolve(self, machine: Machine, saga_id: UUID) -> None:
        self._tries[saga_id] += 1
        for name in ("retry_step", "compensate_step") if self._tries[saga_id] % _PATIENCE else ():
            with self._shrugging(f"{name} {self._world.label(saga_id)}"):
                await self._give(machine.admin, saga_id, name)
                self._world.simulation.note(f"{name} {self._world.label(saga_id)}: done")
                return
        for step_id in (await machine.orchestrator.get_snapshot(saga_id)).residue:
            with self._shrugging(f"waive {self._world.label(saga_id)} {step_id}"):
                await machine.admin.waive_step(saga_id, step_id, **ACTOR)
        if self._tries[saga_id] > _ROUNDS // 2:  # its participant will never act again: a hook has closed it behind it
            with self._shrugging(f"skip {self._world.label(saga_id)}"):
                await machine.admin.skip_step(saga_id, **ACTOR)

    def _any_saga(self) -> UUID | None:
        rows = self._world.database.rows
        active = sorted(saga_id for saga_id, head in rows.items() if not head.status.is_terminal)
        chosen = active if active and self._world.random.random() < 0.85 else sorted(rows)
        return self._world.random.choice(chosen) if chosen else None

    @contextmanager
    def _shrugging(self, what: str) -> Iterator[None]:
        """Take no for an answer, and a broken line for what it is; anything else is a bug."""
        try:
            yield
        except _EXPECTED as error:
            self._world.simulation.note(f"{what}: {type(error).__name__}")
        except asyncio.CancelledError:
            self._world.simulation.note(f"{what}: the caller has gone")
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self._world.blame(f"{what} raised {error!r}")
