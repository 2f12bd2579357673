"""The table that says whose fault an error of the database is."""

from __future__ import annotations

import sqlite3
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from saga_orchestrator.storage.database_errors import (
    Fault,
    fault_of,
    is_blocked,
    is_contention,
    is_of_the_schema,
    is_passing,
    is_the_rows,
)
from saga_orchestrator.storage.suspects import Suspects


def coded(state: str) -> DBAPIError:
    """An error of PostgreSQL's as SQLAlchemy hands it on."""
    cause = Exception("said the database")
    cause.sqlstate = state  # type: ignore[attr-defined]
    return DBAPIError("UPDATE …", {}, cause)


def of_sqlite(code: int) -> OperationalError:
    """An error of SQLite's as SQLAlchemy hands it on."""
    cause = sqlite3.OperationalError("said the database")
    cause.sqlite_errorcode = code
    return OperationalError("UPDATE …", {}, cause)


DATABASES = [
    *("08006", "25006", "25P02", "25P03", "40001", "40P01", "53100", "53200", "53300", "54001", "55P03", "55006"),
    *("57014", "57P01", "57P05", "58030", "58P01", "XX000", "XX001", "42501", "42P01", "42703", "26000", "42P05"),
]


@pytest.mark.parametrize("state", DATABASES)
def test_a_state_that_is_the_databases(state: str) -> None:
    """Resources, locks, operators, the system, rights and missing tables: the same write may succeed later."""
    assert fault_of(coded(state)) is Fault.DATABASE
    assert is_passing(coded(state))
    assert not is_the_rows(coded(state))


@pytest.mark.parametrize("state", ["22P02", "22003", "23505", "23514", "44000"])
def test_a_state_that_is_the_rows(state: str) -> None:
    """What cannot be stored now cannot be stored later."""
    assert fault_of(coded(state)) is Fault.ROW


@pytest.mark.parametrize("state", ["P0001", "42883", "0A000"])
def test_a_state_that_the_table_does_not_have(state: str) -> None:
    """Nothing is claimed of it: its user decides."""
    assert fault_of(coded(state)) is Fault.UNKNOWN
    assert not is_passing(coded(state))


@pytest.mark.parametrize("code", [5, 261, 517, 6, 8, 1032, 9, 10, 266, 778, 13, 14, 526])
def test_a_code_of_sqlite_that_is_the_databases(code: int) -> None:
    """Busy, locked, readonly, interrupted, ioerr, full and cantopen, with their extended codes."""
    assert fault_of(of_sqlite(code)) is Fault.DATABASE


@pytest.mark.parametrize(("code", "fault"), [(18, Fault.ROW), (19, Fault.ROW), (2067, Fault.ROW), (1, Fault.UNKNOWN)])
def test_other_codes_of_sqlite(code: int, fault: Fault) -> None:
    """A constraint is the row's; an error in general is of an unknown kind."""
    assert fault_of(of_sqlite(code)) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionResetError("reset"), Fault.DATABASE),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed"), Fault.DATABASE),
        (FileNotFoundError(2, "No such file or directory"), Fault.DATABASE),
        (PoolTimeoutError("QueuePool limit reached"), Fault.DATABASE),
        (TimeoutError(), Fault.DATABASE),
        (DBAPIError("SELECT 1", {}, Exception("?"), connection_invalidated=True), Fault.DATABASE),
        (ValueError("Connection closed"), Fault.DATABASE),
        (asyncpg.InterfaceError("connection is closed"), Fault.DATABASE),
        (InterfaceError("SELECT 1", {}, Exception("the pool is gone")), Fault.DATABASE),
        (OperationalError("SELECT 1", {}, Exception(1205, "Lock wait timeout exceeded")), Fault.DATABASE),
        (OperationalError("SELECT 1", {}, Exception("database is locked")), Fault.DATABASE),
        (InterfaceError("SELECT 1", {}, Exception("what is that")), Fault.UNKNOWN),
        (OperationalError("SELECT 1", {}, sqlite3.OperationalError("no such table: saga")), Fault.DATABASE),
        (IntegrityError("INSERT …", {}, sqlite3.IntegrityError("UNIQUE constraint failed")), Fault.ROW),
        (PendingRollbackError("roll it back first"), Fault.UNKNOWN),
        (InterfaceError("SELECT 1", {}, Exception("invalid input for query argument $1: x")), Fault.ROW),
        (StatementError("cannot bind", "SELECT 1", {}, TypeError("not a UUID")), Fault.ROW),
        (LookupError("no such status"), Fault.ROW),
        (FileNotFoundError("no such file"), Fault.ROW),
    ],
    ids=repr,
)
def test_errors_without_a_code(error: Exception, fault: Fault) -> None:
    """Lost connections are told by their kind and by what the driver says; errors of Python come from the row."""
    assert fault_of(error) is fault


def test_contention_and_blocks() -> None:
    """Contention leaves nothing behind; a block is one kind of it."""
    assert [is_contention(coded(state)) for state in ("40001", "40P01", "55P03", "57014")] == [True, True, True, False]
    assert is_contention(OperationalError("BEGIN", {}, Exception("database is locked")))
    assert [is_blocked(coded(state)) for state in ("55P03", "40P01")] == [True, False]


class TestSuspects:
    def test_an_unknown_error_of_a_row_proves_nothing_while_no_other_claim_succeeds(self) -> None:
        suspects, row = Suspects(), uuid4()
        assert not suspects.is_proved(row, coded("P0001"), 0, 1)
        assert not suspects.is_proved(row, coded("P0001"), 0, 1)
        assert suspects.count == 1

    def test_a_row_is_at_fault_when_others_have_succeeded_since_it_failed_first(self) -> None:
        suspects, row = Suspects(), uuid4()
        suspects.count_successes(3)
        assert not suspects.is_proved(row, coded("P0001"), 0, 1)
        suspects.count_successes(1)
        assert suspects.is_proved(row, coded("P0001"), 0, 1)
        assert suspects.count == 0

    def test_a_row_is_at_fault_that_fails_beside_others_that_succeed(self) -> None:
        assert Suspects().is_proved(uuid4(), coded("P0001"), 2, 1)

    def test_an_error_of_the_rows_own_needs_no_other_row(self) -> None:
        assert Suspects().is_proved(uuid4(), coded("23505"), 0, 1)

    def test_rows_that_all_fail_are_not_at_fault(self) -> None:
        assert not Suspects().is_proved(uuid4(), coded("23505"), 0, 2)

    def test_the_oldest_suspect_is_forgotten(self) -> None:
        suspects = Suspects()
        for _ in range(1_001):
            suspects.is_proved(uuid4(), coded("P0001"), 0, 1)
        assert suspects.count == 1_000


def test_a_row_that_a_policy_refuses_is_at_fault_and_no_right_is_missing() -> None:
    """PostgreSQL has one code for both; its function tells them apart, whatever its language, and so does its text."""
    by_function, by_text = coded("42501"), coded("42501")
    assert by_function.orig is not None
    by_function.orig.__cause__ = Exception("eine Zeile")
    by_function.orig.__cause__.server_source_function = "ExecWithCheckOptions"  # type: ignore[attr-defined]
    assert by_text.orig is not None
    by_text.orig.args = ('new row violates row-level security policy for table "trip_saga"',)

    for error in (by_function, by_text):
        assert is_the_rows(error)
        assert not is_of_the_schema(error)
