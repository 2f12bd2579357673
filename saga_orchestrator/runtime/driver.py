"""Driving one saga: perform its work, feed back what happened, commit what follows, until it ends, waits or is lost.

A driver is an actor with a mailbox. Each piece of outstanding work is a task of its own, and its outcome an event in
the mailbox; the driver takes what has arrived, decides it in one go, commits, and begins whatever is outstanding and
not begun yet. It starts nothing before the commit that ordered it. There are three ways out:

- the saga needs nobody (it is over, or waits): the last commit has released it;
- the token no longer fits: somebody else owns the saga, so the driver cancels its tasks and writes nothing more;
- the engine stops it: the tasks are cancelled, and the lease is handed back at once, so that another may take over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from loguru import logger

from ..kernel.effects import Collect
from ..kernel.events import Doubted, Event, Ticked
from ..kernel.projection import outstanding
from ..kernel.step_status import StepStatus
from ..storage.rows import Ownership, Written
from .alarm import GRACE, Alarm
from .background import begun
from .exactly_once import Committed, is_once, perform_once
from .moves import Fold, compose, fold, is_at_work, left_by_owner, left_to_anybody, let_go, read_state
from .notes import NoteBook
from .performer import is_plain, refused
from .tenure import patiently
from .threads import NoThreadError

if TYPE_CHECKING:
    from ..kernel.effects import Work
    from ..storage.rows import Head
    from .performer import Calling
    from .tenure import Tenure
    from .tools import Tools

Outcome = Event | Committed | None
"""What a piece of work comes to: an event, or what it has committed itself, or nothing that anybody waits for."""


class Driver:
    """The owner of one saga."""

    def __init__(self, tenure: Tenure, tools: Tools) -> None:
        self.tenure = tenure
        self.task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]
        """The task that the driver is in."""
        self._tools = tools
        self._begun: dict[str, StepStatus] = {}
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._mail: list[Event] = []
        self._bell: asyncio.Future[None] | None = None
        self._alarm = Alarm(tenure, tools.now, self.put)
        self._notes = NoteBook(self.put)
        tenure.book = self._notes
        self._left_behind: set[asyncio.Task[Outcome]] = set()
        self._cut: set[asyncio.Task[Outcome]] = set()
        self._stale = False
        self._lost = False
        self._fenced = False
        self._failure: Exception | None = None
        self._is_driven = False
        self._is_busy = False
        self._is_released = False
        self._stopped: asyncio.Event | None = None

    async def run(self) -> None:
        """Drive the saga until it needs this process no longer."""
        self._is_driven = True
        try:
            self._begin()
            while is_at_work(self.tenure.state) and not self._lost:
                if not self._mail and not self._stale:
                    self._bell = asyncio.get_running_loop().create_future()
                    await self._bell
                if self._stale:
                    await self._reload()
                if self._mail and not self._lost:
                    mail, self._mail = self._mail, []
                    await self._advance(mail)
            if self._failure is not None:
                raise self._failure
        finally:
            self._cancel_all()
            self._notes.close()
            self._is_driven = False
            self._hand_on_doubts()
            if self._stopped is not None:
                self._stopped.set()

    def put(self, event: Event) -> None:
        """Tell the driver that something has happened."""
        self._mail.append(event)
        self._ring()

    def refresh(self) -> None:
        """Tell the driver that somebody else has moved its saga."""
        self._stale = True
        self._ring()

    @property
    def is_lost(self) -> bool:
        """Whether the driver has been told to stop everything."""
        return self._lost

    def lose(self) -> None:
        """Stop everything: the lease is, or is about to be, somebody else's."""
        self._lost = True
        self._cancel_all()
        self._ring()

    async def release(self) -> None:
        """Hand the lease back, with the work in flight cut off; the next owner finds it in doubt."""
        self._lost = self._is_released = True
        try:
            await self._release()
        finally:
            self._is_released = False
            self._hand_on_doubts()

    async def _release(self) -> None:
        tasks = [*self._tasks.values(), *self._left_behind]
        self._cancel_all()
        self._ring()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE.total_seconds())
        await self._stop()
        while is_at_work(self.tenure.state) and not self._fenced:
            now = self._tools.now()
            done = self._fold(self._mail, now)
            state = done.state
            left = left_to_anybody(now) if is_at_work(state) else let_go(self.tenure.definition, state, now)
            if await self._commit(done, now, left):
                self._mail.clear()
                return

    def _hand_on_doubts(self) -> None:
        """Have written otherwise what this driver does not write any more."""
        if not (self._is_driven or self._is_released):
            mail, self._mail = self._mail, []
            for event in mail:
                if isinstance(event, Doubted):
                    self._tools.doubt(self.tenure.saga_id, event)

    async def _stop(self) -> None:
        """Wait until nobody drives the saga: a commit in flight comes first, and a later one would contradict it."""
        if self._is_driven:
            self._stopped = self._stopped or asyncio.Event()
            await self._stopped.wait()

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def _advance(self, events: list[Event]) -> None:
        """Decide the events, commit, and begin what follows; decide again if somebody moved the saga meanwhile."""
        while not self._lost:
            now = self._tools.now()
            done = self._fold(events, now)
            if not done.moved:
                self._alarm.set()
                self._notes.answer(events, ())
                return
            if await self._commit(done, now, left_by_owner(self.tenure.definition, done.state, now)):
                self._adopt(done)
                self._notes.answer(events, done.records)
                return
        self._mail[:0] = events  # what was not committed, `release` still may

    def _fold(self, events: list[Event], now: datetime) -> Fold:
        tenure = self.tenure
        known = [Ticked(self._alarm.spared(now)) if isinstance(event, Ticked) else event for event in events]
        return fold(tenure.definition.graph, tenure.state, tenure.last_error, known, now)

    async def _commit(self, done: Fold, now: datetime, ownership: Ownership | None) -> bool:
        """Make a fold durable; return False when it has to be decided again, or is no longer ours to decide."""
        tenure = self.tenure
        self._is_busy = True
        written = await self._tools.commits.submit(compose(tenure, done, now, ownership))
        self._is_busy = False
        if written is Written.CONFLICT:
            await self._reload()
        elif written is Written.FENCED:
            self._fence()
        return written is Written.DONE

    def _fence(self) -> None:
        logger.debug("saga {} is no longer this driver's", self.tenure.saga_id)
        self._fenced = True
        self.lose()

    def _adopt(self, done: Fold) -> None:
        tenure = self.tenure
        tenure.state, tenure.last_error = done.state, done.last_error
        tenure.revision += 1
        tenure.known_past.learn(done.records)
        self._begin()

    async def _reload(self) -> None:
        """Read the row again: an operator, or a signal, has moved the saga."""
        self._stale = False
        tenure = self.tenure
        self._is_busy = True
        head = await self._read()
        self._is_busy = False
        if not self._is_ours(head):
            self._fence()
            return
        tenure.state = read_state(tenure.definition, head)
        tenure.revision, tenure.last_error = head.revision, head.last_error
        tenure.past_is_known = False  # a write of our own, whose answer was lost, may be among what has moved it
        self._begin()

    async def _read(self) -> Head | None:
        tenure = self.tenure
        return await patiently(lambda: tenure.store.head(tenure.saga_id), lambda: self._lost)

    def _is_ours(self, head: Head | None) -> TypeGuard[Head]:
        """Return whether the saga is there, and this driver's: it may have been aborted, and deleted since."""
        return head is not None and head.step_execution_token == self.tenure.token

    # --- work --------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin whatever is outstanding and not begun yet; leave behind what no longer is."""
        if self._lost:
            return
        live = self.tenure.state.open
        for step_id in [i for i, s in self._begun.items() if (now := live.get(i)) is not s and now != s]:
            self._leave_behind(step_id)
        for work in outstanding(self.tenure.state):
            if work.step_id not in self._begun:
                self._begun[work.step_id] = live[work.step_id]
                known = self.tenure.past_is_known
                task = begun(self._perform(work) if known else self._perform_once_known(work))
                if task.done():
                    self._done(task)
                else:
                    self._tasks[work.step_id] = task
                    task.add_done_callback(self._done)
        self._alarm.set()

    def _perform(self, work: Work) -> Coroutine[Any, Any, Outcome]:
        """Return the performance of work that begins now: however slow its commit was, its time runs from here."""
        if isinstance(work, Collect):
            return self._collect()
        needs_thread = self.tenure.definition.has_plain and is_plain(self.tenure, work)
        return self._perform_in_turn(work) if needs_thread else self._perform_now(work)

    async def _perform_in_turn(self, work: Calling) -> Outcome:
        """Perform work that needs a thread, once there is one: its time begins then."""
        try:
            async with self._tools.threads.turn(f"step '{work.step_id}' of saga {self.tenure.saga_id}"):
                performing = self._perform_now(work)
                self._alarm.set()
                return await performing
        except NoThreadError as error:
            return refused(work, self.tenure, error)

    def _perform_now(self, work: Calling) -> Coroutine[Any, Any, Outcome]:
        now = self._tools.now()
        self._alarm.count_from(work.step_id, now)
        if is_once(self.tenure, work):
            return perform_once(self._tools.performer, work, self.tenure, self._tools.now)
        return self._tools.performer.perform(work, self.tenure, now)

    def _take_over(self, committed: Committed | None) -> None:
        """Go on from what a step has committed with its own rows; read the row if others have moved it as well."""
        if committed is not None and committed.revision == self.tenure.revision and not self._is_busy:
            self._adopt(committed.done)
            self._ring()
        else:
            self.refresh()

    async def _collect(self) -> Event:
        """Look for what has come before the step asked. What is found is in the row by then, and so is that none is."""
        saga_id = self.tenure.saga_id
        try:
            await patiently(lambda: self._tools.collect(saga_id), lambda: self._lost)
        except Exception:
            if self._is_ours(await self._read()):
                raise
        self.refresh()
        return Ticked()

    async def _perform_once_known(self, work: Work) -> Outcome:
        await self.tenure.past()
        performing = self._perform(work)
        self._alarm.set()
        return await performing

    def _leave_behind(self, step_id: str) -> None:
        """Cancel work whose answer is not waited for any more; if it answers all the same, the kernel judges it."""
        del self._begun[step_id]
        self._alarm.forget(step_id)
        task = self._tasks.pop(step_id, None)
        if task is not None and not task.done():
            self._cut_off(task)
            self._left_behind.add(task)
            task.add_done_callback(self._left_behind.discard)

    def _done(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled():
            if not self._lost and task not in self._left_behind:
                logger.warning("saga {}: its step was cancelled, and not by its driver", self.tenure.saga_id)
                self.lose()
            return
        if (error := task.exception()) is not None:  # a defect of this library, never a step's
            self._failure = error if isinstance(error, Exception) else None
            self.lose()
            return
        result = task.result()
        if result is None or isinstance(result, Committed):
            self._take_over(result)
        else:
            self.put(result)
            if isinstance(result, Doubted):
                self._hand_on_doubts()

    def _cancel_all(self) -> None:
        self._alarm.cancel()
        for task in (*self._tasks.values(), *self._left_behind):
            self._cut_off(task)

    def _cut_off(self, task: asyncio.Task[Outcome]) -> None:
        """Cancel work, once: what it does about that, closing a connection in good order, is not to be cut off, too."""
        if task not in self._cut:
            self._cut.add(task)
            task.cancel()
