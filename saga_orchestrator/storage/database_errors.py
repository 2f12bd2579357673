"""Whose fault an error of the database is: the one table by which every caller decides what to do about it.

An error is the database's when it says that the database cannot do its work now, or not for this user: the disk is
full, a statement was cancelled, a table is missing. The same write may succeed later, so the saga stays due.

An error is the row's when it says that this content cannot be stored or read. Trying again is useless.

Of any other error the table says that it is unknown. The engine takes an unknown error in a statement of its own for
the database's. In a transaction of the author's the same error is the step's.
"""

from __future__ import annotations

from enum import Enum

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InvalidRequestError,
    OperationalError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .pooler import LOST_STATEMENTS


class Fault(Enum):
    """Who is to blame for an error."""

    DATABASE = "database"
    ROW = "row"
    UNKNOWN = "unknown"


_DATABASES_CLASSES = ("08", "25", "40", "53", "54", "55", "57", "58", "XX")
"""SQLSTATE classes: connection, transaction state, rollback, resources, limits, locks, operator, system, internal."""
_NO_SUCH = ("42P01", "42703")
"""Undefined table, undefined column."""
_SCHEMA = ("42501", *_NO_SUCH)
"""Insufficient privilege, and what is undefined."""
_MISSING = ("no such table", "no such column", "has no column named")
"""What SQLite says, under its code for errors in general."""
_ROWS_CLASSES = ("22", "23", "44")
"""SQLSTATE classes: data that cannot be read or stored, constraints, and the check options of views."""
_DENIED = "42501"
_POLICY = "row-level security policy"
"""What PostgreSQL says of a row that a policy refuses, under the code for missing rights."""
_CHECKS_POLICIES = "ExecWithCheckOptions"
"""The function of PostgreSQL's that says so, in whatever language."""
_SQLITE_DATABASES = frozenset((3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17, 22, 23, 26))
"""SQLite: perm, abort, busy, locked, nomem, readonly, interrupt, ioerr, corrupt, full, cantopen, protocol, schema,
nolfs, auth, notadb."""
_SQLITE_ROWS = frozenset((18, 19, 20))
"""SQLite: too big, constraint, mismatch."""
_MARIADB_DATABASES = frozenset((1205, 1213))
"""MariaDB's lock wait timeout and deadlock."""
_CONTENTION = ("40001", "40P01", "55P03")
_BLOCKED = "55P03"
_DYING = "cannot switch to state"
"""What asyncpg says of a connection that the server has ended while it was idle, and that is not closed yet."""
_NO_VALUE = "invalid input for query argument"
"""What asyncpg says of a value that it cannot send."""
_CONNECTION_WORDS = ("connection", "closed", "pool", _DYING)


def fault_of(error: BaseException) -> Fault:
    """Return whose fault an error is that a call to the database has raised."""
    try:
        return _fault_of(error)
    except Exception:  # noqa: BLE001 - an error of the author's may raise when it is looked at
        return Fault.UNKNOWN


def _fault_of(error: BaseException) -> Fault:
    if isinstance(error, PoolTimeoutError | TimeoutError) or _is_of_the_network(error):
        return Fault.DATABASE
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Fault.DATABASE
    cause = _cause_of(error)
    if state := sqlstate_of(cause):
        return Fault.ROW if _is_of_a_policy(state, cause) else _fault_of_state(state)
    code = getattr(cause, "sqlite_errorcode", None)
    if is_of_the_schema(error):
        return Fault.DATABASE
    if code is not None:
        return _fault_of_sqlite(code & 0xFF)
    return Fault.ROW if isinstance(error, IntegrityError | DataError) else _fault_by_name(error, cause)


def is_passing(error: BaseException) -> bool:
    """Return whether the table says that an error is the database's, so that the same call may succeed later."""
    return fault_of(error) is Fault.DATABASE


def is_the_rows(error: BaseException) -> bool:
    """Return whether the table says that an error is the row's, so that trying again is useless."""
    return fault_of(error) is Fault.ROW


def is_contention(error: BaseException) -> bool:
    """Return whether a transaction lost against others, which leaves nothing of it behind."""
    cause = _cause_of(error)
    return sqlstate_of(cause) in _CONTENTION or (isinstance(error, DBAPIError) and "locked" in str(cause).lower())


def is_blocked(error: BaseException) -> bool:
    """Return whether a transaction gave up because another transaction holds what it needed."""
    return sqlstate_of(error) == _BLOCKED


def is_of_the_schema(error: BaseException) -> bool:
    """Return whether tables, columns or rights are missing, which takes a person to mend."""
    cause = _cause_of(error)
    state = sqlstate_of(cause)
    if _is_of_a_policy(state, cause):
        return False
    return state in _SCHEMA or (not state and any(word in str(cause).lower() for word in _MISSING))


def is_of_a_missing_name(error: BaseException) -> bool:
    """Return whether a table or a column is missing that a statement names. A missing database or role is neither."""
    cause = _cause_of(error)
    state = sqlstate_of(cause)
    return state in _NO_SUCH or (not state and any(word in str(cause).lower() for word in _MISSING))


def _cause_of(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, StatementError) and error.orig is not None else error


def _is_of_the_network(error: BaseException) -> bool:
    """Return whether the operating system says so; a missing file is the network's only if it was a socket's."""
    return isinstance(error, OSError) and not (isinstance(error, FileNotFoundError) and error.errno is None)


def sqlstate_of(error: BaseException | None) -> str:
    """Return the SQLSTATE of an error, or of the driver's error that it wraps; an empty text if it has none."""
    cause = None if error is None else _cause_of(error)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def _is_of_a_policy(state: str, cause: BaseException | None) -> bool:
    """Return whether a policy refuses this row, so that no right is missing."""
    if state != _DENIED or cause is None:
        return False
    function = getattr(cause.__cause__ or cause, "server_source_function", None)
    return function == _CHECKS_POLICIES or _POLICY in str(cause)


def _fault_of_state(state: str) -> Fault:
    if state.startswith(_DATABASES_CLASSES) or state in (*_SCHEMA, *LOST_STATEMENTS):
        return Fault.DATABASE
    return Fault.ROW if state.startswith(_ROWS_CLASSES) else Fault.UNKNOWN


def _fault_of_sqlite(code: int) -> Fault:
    if code in _SQLITE_DATABASES:
        return Fault.DATABASE
    return Fault.ROW if code in _SQLITE_ROWS else Fault.UNKNOWN


def _fault_by_name(error: BaseException, cause: BaseException | None) -> Fault:
    """Judge an error without a code: one that a driver raises itself, MariaDB's, or one of Python's."""
    name, said = type(cause).__name__, str(cause).lower()
    arguments: tuple[object, ...] = getattr(cause, "args", ())
    if any(argument in _MARIADB_DATABASES for argument in arguments[:1] if isinstance(argument, int)):
        return Fault.DATABASE
    if isinstance(cause, ValueError) and said in ("no active connection", "connection closed"):  # aiosqlite's
        return Fault.DATABASE
    is_the_drivers = isinstance(error, InterfaceError) or name in ("InterfaceError", "InternalClientError")
    if is_the_drivers and any(word in said for word in _CONNECTION_WORDS):
        return Fault.DATABASE
    is_operational = isinstance(error, OperationalError) or name == "OperationalError"
    if is_operational and any(word in said for word in ("locked", "connect", "disk", "readonly", "unable to open")):
        return Fault.DATABASE
    is_of_a_database = isinstance(error, DBAPIError | InvalidRequestError) or is_the_drivers or is_operational
    is_of_a_value = isinstance(cause, ValueError) or _NO_VALUE in said
    return Fault.UNKNOWN if is_of_a_database and not is_of_a_value else Fault.ROW
