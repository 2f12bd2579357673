"""Steps whose effects are rows of the saga's own database: done, and recorded as done, in one transaction.

The step works by a session of that transaction. When it has returned, the saga's row is locked, what follows is
decided, and the state, the history and the step's own rows are committed together. So there is no moment at which the
one is there without the other, whatever crashes when: an attempt that nobody has answered for has not acted, and is
simply made again. A reply that comes too late, or from an owner that is none any more, is rolled back with all that was
done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import SagaStateError
from ..kernel.effects import Compensate, Execute, Probe, Verdict
from ..kernel.events import Asked, Compensated, CompensationRaised, Event, Raised, Reply, Returned
from ..kernel.state import State
from ..storage.dialect import is_passing
from ..storage.rows import Head, Move
from ..storage.transaction import Transaction
from .after_commit import committed
from .moves import Fold, Grip, compose, fold, left_by_owner, read_state
from .performer import Calling, Performer, describe, is_worth_retrying

if TYPE_CHECKING:
    from .tenure import Tenure


_BLIPS = 100
"""How often work is done again whose connection was lost; it is cut off when its owner's lease ends."""
_PAUSE = 0.1
"""Seconds until work is done again that the database could not commit."""


class _UndoneError(Exception):
    """The step has not come off, so that nothing of its transaction is to stay.

    `is_lost`: because its connection was; it is no fault of the step's, and no attempt.
    """

    def __init__(self, reply: Reply, *, is_lost: bool) -> None:
        super().__init__()
        self.reply, self.is_lost = reply, is_lost


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

    When the database goes away the work is done again, under the same attempt: what had been committed by then is found
    out by the row.
    """
    for _ in range(_BLIPS):
        try:
            return await _perform_once(performer, work, tenure, now)
        except _UndoneError as undone:
            if not undone.is_lost:
                return _certain(undone.reply)
        except _LateError:
            return None
        except Exception as error:  # noqa: BLE001 - what the database refuses, a constraint for example, is not done
            if not is_passing(error):
                return _failed(work, tenure, error)
        await asyncio.sleep(_PAUSE)
    return _failed(work, tenure, ConnectionError("the connection was lost each time"))


async def _perform_once(performer: Performer, work: Calling, tenure: Tenure, now: Callable[[], datetime]) -> Committed:
    settled: list[Committed] = []

    def judge(head: Head, at: datetime) -> Move:
        if head.step_execution_token != tenure.token:
            raise _LateError
        read = Committed(_taken(tenure, read_state(tenure.definition, head), head.last_error, reply, at), head.revision)
        settled[:] = [read]
        return _move(tenure, read, at)

    async with tenure.store.transaction() as transaction:
        reply = _come_off(transaction, await performer.perform(work, tenure, now(), transaction.session))
        at = now()
        settled.append(Committed(_taken(tenure, tenure.state, tenure.last_error, reply, at), tenure.revision))
        await transaction.settle(_move(tenure, settled[0], at), judge)
    if isinstance(transaction.session, AsyncSession):
        committed(transaction.session.sync_session)
    return settled[0]


def _come_off(transaction: Transaction, reply: Reply) -> Reply:
    """Return a reply that tells of a success; any other ends the transaction."""
    if not isinstance(reply, Returned | Compensated | Asked):
        raise _UndoneError(reply, is_lost=transaction.is_lost)
    return reply


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


def _certain(reply: Reply) -> Reply:
    """Return a failure of which it is certain that it has left nothing, for it was rolled back."""
    return replace(reply, in_doubt=False) if isinstance(reply, Raised | CompensationRaised) else reply


def _failed(work: Calling, tenure: Tenure, error: Exception) -> Reply:
    step = tenure.definition.step(work.step_id)
    is_undo = isinstance(work, Compensate)
    policy = step.node.compensation_retry if is_undo else step.retry_policy
    retryable = not isinstance(error, SagaStateError) and is_worth_retrying(policy, error)
    kind = CompensationRaised if is_undo else Raised
    return kind(work.step_id, work.attempt, describe(error, "its transaction"), retryable)
