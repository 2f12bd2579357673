"""Calling something once a caller's transaction has been committed, and never if it is rolled back."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from .error_text import hide_message

_WAITING = "saga_orchestrator.after_commit"


def after_commit(session: Session, then: Callable[[], object]) -> None:
    """Call `then` when the session's outermost transaction has been committed.

    A savepoint that is released is not a commit. What was asked for inside a savepoint that is rolled back is called
    all the same when the rest is committed: `then` has to find out that there is nothing to do.
    """
    if _WAITING not in session.info:
        session.info[_WAITING] = []
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_transaction_end", _ended)
    session.info[_WAITING].append(then)


def committed(session: Session) -> None:
    """Call what has waited for the commit. Who commits the session's connection, and not the session, calls this."""
    waiting, session.info[_WAITING] = session.info.get(_WAITING, []), []
    for then in waiting:
        then()


def tell_committed(session: Session, describe: Callable[[BaseException], str]) -> None:
    """Tell a session that its transaction has been committed on its connection, as its own commit would."""
    try:
        session.dispatch.after_commit(session)
    except Exception as error:  # noqa: BLE001 - it is committed, whatever a listener of the application's makes of it
        told = hide_message(describe(error))
        logger.error("a listener of after_commit failed; the step's transaction is committed: {}", told)
    committed(session)


def _committed(session: Session) -> None:
    if not session.in_nested_transaction():
        committed(session)


def _ended(session: Session, transaction: SessionTransaction) -> None:
    """Forget what was asked for in a transaction that ends; after a commit there is nothing left to forget."""
    if transaction.parent is None:
        session.info[_WAITING] = []
