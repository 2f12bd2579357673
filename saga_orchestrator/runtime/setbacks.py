"""What becomes of a saga whose driver has failed by itself, and not by what a step did.

It is due again after a pause, and the failure counts like the loss of an owner: after `max_recoveries` of them without
any progress the saga is STUCK, for a person to look at. What the database refused counts against no saga.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..storage.dialect import is_passing
from ..storage.rows import Head, Move
from .error_text import describe
from .moves import left_to_anybody, taken

if TYPE_CHECKING:
    from ..definition.io import Payloads
    from .tenure import Tenure

_LONGEST = 60.0
"""Seconds until a saga is tried again, at most; the pause doubles with each failure."""


def is_of_the_database(error: Exception) -> bool:
    """Return whether a driver has failed because of the database, and not by a defect."""
    return is_passing(error) or isinstance(error, SQLAlchemyError | OSError)


def judge_setback(tenure: Tenure, error: Exception, payloads: Payloads) -> Callable[[Head, datetime], Move | None]:
    """Return the judge that leaves a saga to its next owner, if it is still this one's."""
    is_own = not is_of_the_database(error)

    def judge(head: Head, now: datetime) -> Move | None:
        if head.step_execution_token != tenure.token or head.lease_owner is None:
            return None
        until = now + timedelta(seconds=min(2.0**tenure.state.recoveries, _LONGEST))
        # the next owner counts one that has vanished, and takes nothing more of this one, which has a new token
        left = taken(head.lease_owner, until) if is_own else left_to_anybody(until)
        shown = head.last_error or describe(error, "an internal failure", payloads)
        ownership = left._replace(awaiting=head.awaiting, finished_at=head.finished_at)
        place = head.current_step_index, head.retry_counter
        token = head.step_execution_token
        return Move(head.id, head.revision, token, head.status, head.state, *place, shown, now, ownership, ())

    return judge
