"""What ails a database that is up: a full disk, an operator's time limit, a connection that says nothing any more."""

from __future__ import annotations

import sqlite3
from random import Random

from sqlalchemy.exc import DBAPIError, OperationalError

from saga_orchestrator import SagaStatus
from saga_orchestrator.storage.rows import Head

from .plan import LEASE

SILENCE = 0.6 * LEASE
"""Seconds after which a call ends that the database does not answer."""
STATES = ("57014", "53100", "53200", "53300", "58030", "XX000", "42501", "40001", "40P01", "25006", "54000", "55000")
"""SQLSTATEs that say nothing about the row in hand."""
DENIED = "42501"
SAYINGS = {
    "SQLITE_FULL": "database or disk is full",
    "SQLITE_BUSY": "database is locked",
    "SQLITE_IOERR": "disk I/O error",
    "SQLITE_READONLY": "attempt to write a readonly database",
    "SQLITE_CANTOPEN": "unable to open database file",
}
"""SQLite's names for the same, and what it says."""


class PostgresAilment(Exception):  # noqa: N818 - the driver's own name for it ends so
    """An error as PostgreSQL's driver raises it."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"the database is not well: {sqlstate}")
        self.sqlstate = sqlstate


def a_sick_database(random: Random) -> DBAPIError:
    """Return what a statement raises on one of these days."""
    if random.random() < 0.6:
        return DBAPIError("a statement", {}, PostgresAilment(random.choice(STATES)))
    name = random.choice(sorted(SAYINGS))
    said = sqlite3.OperationalError(SAYINGS[name])
    said.sqlite_errorname = name
    return OperationalError("a statement", {}, said)


def is_quarantined(head: Head) -> bool:
    """Return whether a saga has been set aside because nobody could drive it."""
    said = head.last_error or ""
    return head.status is SagaStatus.STUCK and ("quarantined" in said or "owners in a row" in said)
