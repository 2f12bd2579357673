"""What becomes of a saga whose driver has failed by itself, and not by what a step did.

It is due again after a pause, and the failure counts like the loss of an owner: after `max_recoveries` of them without
any progress the saga is STUCK, for a person to look at.

What the database could not do counts against no saga: it may do the same later. What the database refuses to keep of
this saga counts: a constraint, a trigger or a policy of the application's will refuse it again, and each new try calls
the step again. An error of an unknown kind counts if the database writes the saga's row right after it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loguru import logger
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..definition.io import clean_text
from ..kernel.claim import LOST
from ..storage.database_errors import is_passing, is_the_rows
from ..storage.rows import Head, Move
from .error_text import describe, show
from .moves import left_to_anybody, taken

if TYPE_CHECKING:
    from ..definition.io import Payloads
    from ..storage.contract import Store
    from .tenure import Tenure

_LONGEST = 60.0
"""Seconds until a saga is tried again, at most; the pause doubles with each failure."""
_LONGEST_TEXT = 4_000
_REFUSED = "the database has refused what the saga has come to"


async def set_back(store: Store, tenure: Tenure, error: Exception, payloads: Payloads) -> bool:
    """Leave a saga to its next owner; return False if that could not be written, so that its lease has to run out.

    A database that cannot keep the text of the error may keep the rest.
    """
    for tells in (True, False):
        try:
            await store.advance(tenure.saga_id, judge_setback(tenure, error, payloads, tells=tells))
        except Exception as failed:  # noqa: BLE001 - whatever it is, the saga is due when its lease ends
            if tells and _is_refused(failed):
                continue
            logger.warning("saga {}: it is left to its lease: {}", tenure.saga_id, show(failed, payloads))
            return False
        return True
    raise AssertionError("unreachable")


def judge_setback(
    tenure: Tenure, error: Exception, payloads: Payloads, *, tells: bool = True
) -> Callable[[Head, datetime], Move | None]:
    """Return the judge that leaves a saga to its next owner, if it is still this one's.

    Args:
        tells: Whether it writes the error, too.
    """
    counts = not is_passing(error)

    def judge(head: Head, now: datetime) -> Move | None:
        if head.step_execution_token != tenure.token or head.lease_owner is None:
            return None
        until = now + timedelta(seconds=min(2.0**tenure.state.recoveries, _LONGEST))
        # the next owner counts one that has vanished, and takes nothing more of this one, which has a new token
        left = taken(head.lease_owner, until) if counts else left_to_anybody(until)
        shown = _told(head.last_error, error, payloads) if tells else head.last_error
        ownership = left._replace(awaiting=head.awaiting, finished_at=head.finished_at)
        place = head.current_step_index, head.retry_counter
        token = head.step_execution_token
        return Move(head.id, head.revision, token, head.status, head.state, *place, shown, now, ownership, ())

    return judge


def is_of_the_database(error: Exception) -> bool:
    """Return whether the database may be to blame for an error, and not the saga or a defect."""
    return is_passing(error) or (isinstance(error, SQLAlchemyError) and not is_the_rows(error))


def _is_refused(error: Exception) -> bool:
    """Return whether the database will never keep what it was given."""
    return isinstance(error, DBAPIError) and is_the_rows(error)


def _told(shown: str | None, error: Exception, payloads: Payloads) -> str:
    """Return the error to show: what the database refuses stands before what the saga has failed for."""
    if is_passing(error) or not isinstance(error, DBAPIError):
        return shown or describe(error, "an internal failure", payloads)
    if shown is not None and shown.startswith(_REFUSED):
        return shown
    if payloads.codec is None:  # what follows in the database's text quotes the row
        told = clean_text(f"{_REFUSED}: {str(error.orig).partition(chr(10))[0]}", _LONGEST_TEXT)
    else:
        told = describe(error, _REFUSED, payloads)
    return told if shown in (None, LOST) else f"{told} <- {shown}"
