"""Simulation: concurrent code whose every run can be had again from its seed. The idea is FoundationDB's.

What makes a run of asyncio code differ from the last one is taken away from the machine and given to a seed:

- *Time* is virtual. When nothing can run, the clock jumps to the next timer; an hour of leases passes in milliseconds.
- *Order* is drawn. Whatever is ready at the same moment runs in a shuffled order, not in the order of asking for it.
- *Chance* is drawn too: `uuid4`, `secrets` and `os.urandom` answer from the seed, `time.time` from the virtual clock.

There is no I/O: what the code under test talks to has to be simulated as well, such as a database by `MemoryStore`.
Nor are there threads. Iterating over a set of strings is the one thing that the seed does not decide;
`PYTHONHASHSEED` does.

A `Host` stands for an operating-system process. Whatever is begun in it, and whatever that begins, belongs to it:
tasks, timers, callbacks. So it can be *killed* as by SIGKILL, when none of its code runs any more, not even a
`finally`; and it can be *frozen* as by SIGSTOP, a long garbage collection or a sleeping laptop, to wake up as a
zombie that believes in leases which have long passed to others.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from heapq import heappop
from random import Random
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")

_HOST: contextvars.ContextVar[Host] = contextvars.ContextVar("saga_simulation_host")
_TURN = 1e-6
"""Seconds that a turn of the loop takes, so that code which never sleeps does not stop the clock."""
_BURIAL = 10_000
"""Turns that are given to the cleanup of whatever a run has left behind."""


class DeadlockError(RuntimeError):
    """Nothing is ready and nothing is timed, so nothing will ever happen again; or things happen without end."""


class Condition(Enum):
    """What a host is doing."""

    RUNNING = "running"
    FROZEN = "frozen"
    KILLED = "killed"


class Host:
    """A simulated operating-system process.

    Args:
        name: What to call it in a trace.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.condition = Condition.RUNNING
        self.was_frozen = False
        self._withheld: list[asyncio.Handle] = []

    @staticmethod
    def current() -> Host | None:
        """Return the host that the running code belongs to, or None outside all of them."""
        return _HOST.get(None)

    @property
    def is_running(self) -> bool:
        """Whether its code runs, neither frozen nor killed."""
        return self.condition is Condition.RUNNING

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a task in this host."""
        return asyncio.get_running_loop().create_task(work, context=self._make_context())

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in this host, and return what it returns."""
        return self._make_context().run(function)

    def _make_context(self) -> contextvars.Context:
        context = contextvars.Context()
        context.run(_HOST.set, self)
        return context

    def freeze(self, seconds: float) -> None:
        """Let it stand still for a while: nothing of it runs, and what comes due is late."""
        if self.is_running:
            self.condition, self.was_frozen = Condition.FROZEN, True
            asyncio.get_running_loop().call_later(seconds, self.thaw, context=contextvars.Context())

    def thaw(self) -> None:
        """Let it go on, with everything that has come due meanwhile."""
        if self.condition is Condition.FROZEN:
            self.condition = Condition.RUNNING
            _loop().release(self._withheld)

    def kill(self) -> None:
        """End it at once: beyond the next `await` of the caller, if he is part of it, nothing of it runs any more."""
        self.condition = Condition.KILLED
        _loop().remember_remains()

    def withhold(self, handle: asyncio.Handle) -> None:
        """Keep a callback that may not run now."""
        self._withheld.append(handle)


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop that turns in virtual time and in drawn order.

    It replaces the one method of asyncio's own loop that polls, waits and runs. The attributes that it shares with
    the rest of that loop are private to CPython, and have not changed since Python 3.4.

    Args:
        random: Draws the order.
        max_turns: How many turns are too many, which is taken for a run without end.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, random: Random, max_turns: int) -> None:
        super().__init__()
        self._random = random
        self._turns_left = max_turns
        self._now = 0.0
        self._remains: set[asyncio.Task[Any]] = set()
        self._hosts: set[Host] = set()
        self.is_burying = False

    def time(self) -> float:
        """Return the virtual time, in seconds since the simulation began."""
        return self._now

    def release(self, handles: list[asyncio.Handle]) -> None:
        """Make withheld callbacks ready again."""
        self._ready.extend(handles)
        handles.clear()

    def remember_remains(self) -> None:
        """Hold on to every task, lest the garbage collector closes those that can never end and runs their cleanup."""
        self._remains |= asyncio.all_tasks(self)

    def bury(self) -> None:
        """Cancel whatever is left, in killed hosts too; by now nobody looks at what it does."""
        self.is_burying, self._turns_left = True, _BURIAL
        for host in self._hosts:
            self.release(host._withheld)
        with suppress(DeadlockError):
            self.run_until_complete(self._cancel_all())

    async def _cancel_all(self) -> None:
        while left := asyncio.all_tasks(self) - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)

    def _run_once(self) -> None:
        self._pass_time()
        turn = [handle for handle in self._ready if not handle.cancelled()]
        self._ready.clear()
        self._random.shuffle(turn)
        for handle in turn:
            self._run_or_withhold(handle)

    def _run_or_withhold(self, handle: asyncio.Handle) -> None:
        host: Host | None = handle._context.get(_HOST)  # type: ignore[attr-defined]
        if host is None or host.is_running or self.is_burying:
            if not handle.cancelled():
                handle._run()
        else:
            self._hosts.add(host)
            host.withhold(handle)

    def _pass_time(self) -> None:
        """Let a turn's time pass, or all the time until the next timer if nothing is ready; make due what is due."""
        self._turns_left -= 1
        if self._turns_left < 0:
            raise DeadlockError(f"still busy after the last turn allowed, {self._now:.1f} virtual seconds into the run")
        self._now += _TURN
        if not self._ready and not self._stopping:
            self._now = max(self._now, self._next_timer())
        while self._scheduled and self._scheduled[0].when() <= self._now:
            self._ready.append(self._pop_timer())

    def _next_timer(self) -> float:
        while self._scheduled and self._scheduled[0].cancelled():
            self._pop_timer()
        if not self._scheduled:
            raise DeadlockError(f"nothing is ready and nothing is timed, {self._now:.1f} virtual seconds into the run")
        return self._scheduled[0].when()

    def _pop_timer(self) -> asyncio.TimerHandle:
        timer = heappop(self._scheduled)
        timer._scheduled = False  # type: ignore[attr-defined]
        return timer

    def _write_to_self(self) -> None:
        """There is no selector that would have to be woken."""


class Simulation:
    """One run that can be had again.

    >>> import asyncio
    >>> async def race():
    ...     winners = []
    ...     for name in "abc":
    ...         asyncio.get_running_loop().call_soon(winners.append, name)
    ...     await asyncio.sleep(3600)
    ...     return "".join(winners)
    >>> Simulation(seed=1).run(race) == Simulation(seed=1).run(race)
    True
    >>> len({Simulation(seed).run(race) for seed in range(50)})
    6

    Args:
        seed: Decides everything.
        start: The virtual time at the beginning.
        max_turns: How many turns of the event loop are taken for a run without end.

    Attributes:
        random: For whatever the simulated world has to draw: faults, delays, inputs.
        trace: What was noted, one line each.
    """

    def __init__(
        self, seed: int, *, start: datetime = datetime(2030, 1, 1, tzinfo=UTC), max_turns: int = 300_000
    ) -> None:
        self.seed = seed
        self.random = Random(f"{seed}/world")
        self.trace: list[str] = []
        self._start = start
        self._max_turns = max_turns

    def now(self) -> datetime:
        """Return the virtual time, the one clock that all hosts agree on: as `MemoryStore(now=...)`."""
        return self._start + timedelta(seconds=_loop().time())

    def note(self, what: str) -> None:
        """Add a line to the trace, with the time and the host; after the end of `main` nothing is noted any more."""
        host, loop = Host.current(), _loop()
        if not loop.is_burying:
            self.trace.append(f"{loop.time():12.6f} {'-' if host is None else host.name:>6}  {what}")

    @property
    def digest(self) -> str:
        """What tells two traces apart: the same for the same seed, or something escapes the simulation."""
        return hashlib.blake2b("\n".join(self.trace).encode(), digest_size=8).hexdigest()

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine to its end in a loop, a time and a chance of its own, and return its result.

        The cleanup of killed hosts, and of whatever `main` leaves behind, runs after that.

        Raises:
            DeadlockError: Nothing would ever happen again, or the turns were not enough.
        """
        loop = SimulatedLoop(Random(f"{self.seed}/order"), self._max_turns)
        with self._chance(loop):
            try:
                return loop.run_until_complete(main())
            finally:
                loop.bury()
                loop.close()

    @contextmanager
    def _chance(self, loop: SimulatedLoop) -> Iterator[None]:
        """Have the interpreter's sources of chance, and its wall clock, answer from the seed."""
        draw = Random(f"{self.seed}/chance").randbytes
        began = self._start.timestamp()
        answers: dict[str, Callable[..., Any]] = {
            "os.urandom": draw,
            "random._urandom": draw,  # where `secrets` looks
            "time.time": lambda: began + loop.time(),
            "time.time_ns": lambda: int((began + loop.time()) * 1e9),
        }
        with ExitStack() as patches:
            for name, answer in answers.items():
                patches.enter_context(mock.patch(name, answer))
            yield


def _loop() -> SimulatedLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop), "this is for code that Simulation.run runs"
    return loop
