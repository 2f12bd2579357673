"""What really happened, as the participants know it: the truth that the sagas' own story is audited against.

A participant does what an idempotency key asks for once, however often it is asked. It remembers an undo that comes
before its do (a tombstone), and then refuses the do: without that, no saga can be right about a request that is still
under way.

A rewind asks for the same again, under other keys: to the participants that is something else, which they do, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from saga_orchestrator import PermanentError, StepContext
from saga_orchestrator.kernel.state import State
from saga_orchestrator.runtime.tenure import Tenure
from saga_orchestrator.testing.simulation import Host

CONFIRM = ".confirm"
"""What the step is called by which another is confirmed."""
HOOK = "(hook)"
"""What stands for the step while a hook is called about a whole saga."""


class Place(NamedTuple):
    """One step of one saga, in one of its lives: each rewind begins another, and `spent` is its number."""

    saga_id: UUID
    step_id: str
    spent: int = 0

    @property
    def life(self) -> str:
        """What is shown of the life: nothing of the first."""
        return f"~{self.spent}" if self.spent else ""

    @property
    def is_final(self) -> bool:
        """Whether it is the confirming of another step."""
        return self.step_id.endswith(CONFIRM)

    @classmethod
    def called(cls, ctx: StepContext) -> Place:
        """Return who is called, as the key says that the participant is given."""
        _, rewound, spent = ctx.idempotency_key.rpartition("~")
        step_id = f"{ctx.step_id}{CONFIRM}" if ctx.phase == "confirm" else ctx.step_id
        return cls(ctx.saga_id, step_id, int(spent) if rewound else 0)

    @classmethod
    def now(cls, saga_id: UUID, step_id: str, state: State) -> Place:
        """Return the step in the life that it has now."""
        return cls(saga_id, step_id, state.spent.get(step_id, 0))


class HookError(RuntimeError):
    """What a hook raises that has failed."""


class Part(NamedTuple):
    """A part of a step's work. An undo that has learnt what it undoes may do its part once more."""

    place: Place
    phase: str
    knows_output: bool


@dataclass(slots=True)
class Effect:
    """What one participant has done for one step of one saga, in one of its lives."""

    receipt: int = 0
    undone: bool = False
    closed: bool = False
    keys: dict[str, set[str]] = field(default_factory=dict)
    inputs: set[str] = field(default_factory=set)

    @property
    def stands(self) -> bool:
        """Whether it was done and not undone."""
        return self.receipt > 0 and not self.undone


@dataclass(eq=False, slots=True)
class Call:
    """A call of a step that is going on."""

    place: Place
    phase: str
    host: Host
    task: asyncio.Task[object]
    tenure: Tenure | None

    def is_believed_in(self, now: float) -> bool:
        """Return whether its owner has a right to think that the saga is his: only one who was frozen may be wrong."""
        if self.tenure is None or not self.host.is_running or self.task.cancelling():
            return False
        return not self.host.was_frozen or self.tenure.lease_until > now


class Ledger:
    """All participants' books.

    Args:
        blame: Called with whatever must never happen.
        patches: How often somebody has changed a saga's initial data; each time its steps may be called with another
            input.
        is_aborted: Whether somebody has aborted the saga; an abort waits for nobody, so what follows it need not be
            alone.
    """

    def __init__(
        self,
        blame: Callable[[str], None],
        is_aborted: Callable[[UUID], bool],
        patches: Callable[[UUID], int],
        now: Callable[[], datetime],
    ) -> None:
        self._blame = blame
        self._patches = patches
        self._now = now
        self._is_aborted = is_aborted
        self.effects: dict[Place, Effect] = {}
        self._receipts = 0
        self.calls: dict[Call, None] = {}
        self.began: dict[tuple[UUID, str, int], datetime] = {}
        self._remembered: dict[Part, int] = {}

    def effect(self, place: Place) -> Effect:
        """Return what is known of a step; nothing, at first."""
        return self.effects.setdefault(place, Effect())

    def standing(self, saga_id: UUID) -> list[Place]:
        """Return where something of a saga stands."""
        return [place for place, effect in self.effects.items() if place.saga_id == saga_id and effect.stands]

    def do(self, place: Place) -> int:
        """Act, once; return the receipt, which is the same however often one asks."""
        effect = self.effect(place)
        if effect.undone:
            raise PermanentError("this was cancelled before it was done, or after")
        if not effect.receipt:
            self._receipts += 1
            effect.receipt = self._receipts
        return effect.receipt

    def undo(self, place: Place) -> None:
        """Take it back, once; what has not been done will never be."""
        self.effect(place).undone = True

    def close(self, saga_id: UUID) -> None:
        """Take everything of a saga back at once."""
        for place, effect in self.effects.items():
            if place.saga_id == saga_id:
                effect.undone = effect.closed = True

    @contextmanager
    def hook(self, saga_id: UUID, tenure: Tenure | None) -> Iterator[None]:
        """Keep book of a hook while it is called, and object to whatever else goes on of its saga."""
        host, task = Host.current(), asyncio.current_task()
        assert host is not None
        assert task is not None
        call = Call(Place(saga_id, HOOK), HOOK, host, task, tenure)
        self._check_alone(call)
        self.calls[call] = None
        try:
            yield
        finally:
            self.calls.pop(call, None)

    async def do_part(self, part: Part, call: Call, pause: Callable[[], Awaitable[None]]) -> int:
        """Do a part, and return a number that no other has."""
        if part in self._remembered and call.is_believed_in(asyncio.get_running_loop().time()):
            self._blame(f"a part of {part.place.step_id} ({part.phase}) is done again, and was remembered")
        await pause()
        self._receipts += 1
        return self._receipts

    def remember(self, part: Part, call: Call, told: int) -> None:
        """Keep what somebody was told of a part: it is durable, so all are told the same."""
        known = self._remembered.setdefault(part, told)
        if known != told and call.is_believed_in(asyncio.get_running_loop().time()):
            self._blame(f"{part.place.step_id} is told {told} of a part, of which {known} was remembered")

    def is_under_way(self, place: Place) -> bool:
        """Return whether some call, also one of a frozen machine, may still act."""
        return any(call.place == place and call.phase in ("execute", "on_event") for call in self.calls)

    def forget(self, host: Host) -> None:
        """Drop the calls of a machine that is gone: they will never end, and never act."""
        self.calls = {call: None for call in self.calls if call.host is not host}

    @contextmanager
    def call(self, ctx: StepContext, phase: str, given: str, tenure: Tenure | None) -> Iterator[Call]:
        """Keep book of a call while it lasts, and object to what no participant should ever see."""
        host, task = Host.current(), asyncio.current_task()
        assert host is not None
        assert task is not None
        call = Call(Place.called(ctx), phase, host, task, tenure)
        self._check_sameness(call, ctx, given)
        self._check_alone(call)
        self.calls[call] = None
        if phase in ("execute", "on_event", "confirm") or (phase == "part" and ctx.phase == "execute"):
            self.began.setdefault((*call.place[:2], ctx.attempt), self._now())
        try:
            yield call
        finally:
            self.calls.pop(call, None)

    def _check_sameness(self, call: Call, ctx: StepContext, given: str) -> None:
        effect = self.effect(call.place)
        what = ctx.idempotency_key.partition(f"{ctx.step_id}/")[2]
        keys = effect.keys.setdefault("execute" if call.phase == "probe" else what, set())
        keys.add(ctx.idempotency_key)
        effect.inputs.add(given)
        if len(keys) > 1:
            self._blame(f"{call.place[1]} is called under several keys: {sorted(keys)}")
        if len(effect.inputs) > 1 + self._patches(ctx.saga_id):
            self._blame(f"{call.place[1]} is called with several inputs: {sorted(effect.inputs)}")

    def _check_alone(self, call: Call) -> None:
        now = asyncio.get_running_loop().time()
        for other in () if self._is_aborted(call.place[0]) else self.calls:
            is_about_all = HOOK in (other.phase, call.phase) and other.place.saga_id == call.place.saga_id
            is_rival = other.place[:2] == call.place[:2] or is_about_all
            if is_rival and call.is_believed_in(now) and other.is_believed_in(now):
                names = f"{other.host.name} ({other.phase}) and {call.host.name} ({call.phase})"
                self._blame(f"{call.place[1]} is called by two owners at once, neither a zombie: {names}")
