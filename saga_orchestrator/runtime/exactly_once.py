"""Steps whose effects are rows of the saga's own database: done, and recorded as done, in one transaction.

The step works by a session of that transaction. When it has returned, the saga's row is locked, what follows is
decided, and the state, the history and the step's own rows are committed together. So there is no moment at which the
one is there without the other, whatever crashes when: an attempt that nobody has answered for has not acted, and is
simply made again. A reply that comes too late, or from an owner that is none any more, is rolled back with all that was
done.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from loguru import logger
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from ..definition.plain_errors import is_a
from ..errors import SagaStateError
from ..kernel.effects import Compensate, Execute, Probe, Verdict
from ..kernel.events import Asked, Compensated, CompensationRaised, Doubted, Event, Raised, Reply, Returned
from ..kernel.state import State
from ..storage.dialect import is_passing
from ..storage.rows import Head, Move
from ..storage.transaction import LEFT, Transaction, is_own
from .after_commit import tell_committed
from .moves import Fold, Grip, compose, fold, left_by_owner, read_state
from .performer import Calling, Performer, is_worth_retrying

if TYPE_CHECKING:
    from .tenure import Tenure


_TRIES = 100
"""How often work is done whose transaction the database gives up, each time for what passes."""
_PAUSES = (0.02, 1.5, 1.0)
"""Seconds until work is done again for the first time, by what that grows each time, and the most that it grows to."""


_TOO_LONG = (
    "it worked for {:.1f} s in the only connection that can write, so that no lease could be renewed meanwhile; make "
    "the step shorter, or execution_lease longer, a quarter of which it has; on PostgreSQL a larger pool will do"
)


class _UndoneError(Exception):
    """The step has not come off, so that nothing of its transaction is to stay."""


class _LateError(Exception):
    """Nobody waits for the reply any more."""


class Committed(NamedTuple):
    """Work that has come off, and is in the saga's row already. `revision`: the one that it was decided upon."""

    done: Fold
    revision: int


def is_once(tenure: Tenure, work: Calling) -> bool:
    """Return whether work is done in a transaction of its own."""
    step = tenure.definition.step(work.step_id)
    is_first_call = isinstance(work, Execute) and not work.heard
    return step.node.transactional and (is_first_call or not (step.begins_only or isinstance(work, Probe)))


async def perform_once(
    performer: Performer, work: Calling, tenure: Tenure, now: Callable[[], datetime]
) -> Event | Committed | None:
    """Do the work in a transaction of its own, and return what the owner is to hear of it; None if it came too late.

    When the database gives the transaction up, for a deadlock or a lost connection, the work is done again, under the
    same attempt: what had been committed by then is found out by the row.
    """
    loop, tries = asyncio.get_running_loop(), 0
    limit = _limit(work, tenure)
    until = math.inf if limit is None else loop.time() + limit.total_seconds()
    for pause in _pauses(tenure.saga_id):
        trial, tries = _Trial(performer, work, tenure, now), tries + 1
        try:
            return await trial.run()
        except _LateError:
            return trial.doubt() if trial.may_stand else None
        except (Exception, asyncio.CancelledError) as error:
            if trial.may_stand:
                return trial.doubt()
            conflict = trial.conflict(error)
            if isinstance(error, asyncio.CancelledError):
                raise
            if conflict is None:
                return trial.failed(error)
            if tries == _TRIES or loop.time() + pause >= until:
                return trial.given_up(conflict, tries)
        await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def _limit(work: Calling, tenure: Tenure) -> timedelta | None:
    step = tenure.definition.step(work.step_id)
    return step.node.compensation_timeout if isinstance(work, Compensate) else step.timeout


def _pauses(saga_id: UUID) -> Iterator[float]:
    """Yield growing pauses, which are of another length for each saga: two that met are not to meet again."""
    pause, growth, longest = _PAUSES
    for _ in range(_TRIES):
        yield pause * (1 + saga_id.int % 97 / 97)
        pause = min(pause * growth, longest)


class _Trial:
    """One transaction in which the work is done."""

    def __init__(self, performer: Performer, work: Calling, tenure: Tenure, now: Callable[[], datetime]) -> None:
        self._performer, self._work, self._tenure, self._now = performer, work, tenure, now
        self._transaction: Transaction | None = None
        self._reply: Reply | None = None
        self._settled: Committed | None = None
        self._is_too_long = False

    async def run(self) -> Committed:
        """Do the work, and commit it with what follows from it.

        Raises:
            _UndoneError: The work has failed, and nothing of it is there, unless it may stand.
            _LateError: The reply is not wanted any more.
        """
        limit = _limit(self._work, self._tenure)
        async with self._tenure.store.transaction(None if limit is None else limit.total_seconds()) as opened:
            self._transaction = opened
            await self._perform(opened)
            if not isinstance(self._reply, Returned | Compensated | Asked):
                raise _UndoneError
            await opened.settle(self._likely(), self._judge)
        assert self._settled is not None
        if isinstance(opened.session, AsyncSession):
            tell_committed(opened.session.sync_session, self._performer.describe)
        return self._settled

    async def _perform(self, opened: Transaction) -> None:
        """Have the work done, in the time for which it may hold the connection."""
        try:
            async with asyncio.timeout(opened.longest):
                self._reply = await self._performer.perform(self._work, self._tenure, self._now(), opened.session)
        except TimeoutError:
            self._is_too_long = True
            self._reply = self._failed(TimeoutError(_TOO_LONG.format(opened.longest)))

    def _likely(self) -> Move:
        tenure, at = self._tenure, self._now()
        return self._move(_taken(tenure, tenure.state, tenure.last_error, self._given(), at), tenure.revision, at)

    def _judge(self, head: Head, at: datetime) -> Move:
        if head.step_execution_token != self._tenure.token:
            raise _LateError
        read = _taken(self._tenure, read_state(self._tenure.definition, head), head.last_error, self._given(), at)
        return self._move(read, head.revision, at)

    def _move(self, done: Fold, revision: int, at: datetime) -> Move:
        self._settled = Committed(done, revision)
        return _move(self._tenure, self._settled, at)

    def _given(self) -> Reply:
        assert self._reply is not None
        return self._reply

    # --- what has not come off ---------------------------------------------------------------------------------------

    @property
    def may_stand(self) -> bool:
        """Whether the work has ended the transaction itself, so that what it has written may be there."""
        return self._transaction is not None and self._transaction.may_stand

    def conflict(self, error: BaseException) -> BaseException | None:
        """Return the error for which the work is to be done again, if it is."""
        if self._transaction is None:  # the step has not been called: whatever it is, it is the database's
            return error if is_passing(error) or isinstance(error, DBAPIError) else None
        if self._is_too_long:
            return None
        if (found := self._transaction.conflict) is not None:
            return found
        return error if is_passing(error) and not is_own(error) else None

    def failed(self, error: Exception) -> Reply:
        """Return a failure of which it is certain that it has left nothing, for it was rolled back."""
        if isinstance(error, _UndoneError) and isinstance(self._reply, Raised | CompensationRaised):
            return replace(self._reply, in_doubt=False)
        return self._failed(error)

    def given_up(self, conflict: BaseException, tries: int) -> Reply:
        """Return the failure of an attempt whose transaction the database has given up too often."""
        failed = self._failed(conflict)
        return replace(failed, error=f"{tries} times the database gave up {failed.error}")

    def _failed(self, error: BaseException) -> Raised | CompensationRaised:
        work, step = self._work, self._tenure.definition.step(self._work.step_id)
        is_undo = isinstance(work, Compensate)
        policy = step.node.compensation_retry if is_undo else step.retry_policy
        retryable = not is_a(error, SagaStateError) and is_worth_retrying(policy, error)
        kind = CompensationRaised if is_undo else Raised
        return kind(work.step_id, work.attempt, self._performer.describe(error, "its transaction"), retryable)

    def doubt(self) -> Doubted:
        """Return that the work is in doubt, and is not to be done again: it has ended its transaction itself."""
        logger.error("saga {}, step '{}': {}", self._tenure.saga_id, self._work.step_id, LEFT)
        is_undo = isinstance(self._work, Compensate)
        given, raised = getattr(self._reply, "input", None), getattr(self._reply, "error", "")
        shown = f"{raised} <- {LEFT}" if raised else LEFT
        return Doubted(self._work.step_id, self._work.attempt, shown, given, is_undo)


def _taken(tenure: Tenure, state: State, error: str | None, reply: Reply, now: datetime) -> Fold:
    """Return what a reply comes to, if it is still wanted."""
    done = fold(tenure.definition.graph, state, error, [reply], now)
    if done.verdict is not Verdict.APPLIED:
        raise _LateError
    return done


def _move(tenure: Tenure, committed: Committed, now: datetime) -> Move:
    """Return the move that makes it durable; it releases a saga that needs nobody any more."""
    done = committed.done
    grip = Grip(tenure.definition, tenure.saga_id, committed.revision, tenure.token, tenure.parent_id)
    return compose(grip, done, now, left_by_owner(tenure.definition, done.state, now))
