"""The audit by SQL: a figure counts only when the rows say that all of the work was done."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from typing import Any

import asyncpg

from .cases import Entrant
from .contender import Load


class AuditError(Exception):
    """A contender has not written what it was timed for."""


def reset(entrant: Entrant, url: str) -> None:
    """Empty a contender's tables, and let the server write down what the run before has left to be written."""
    if entrant.database == "sqlite":
        with sqlite3.connect(url) as connection:
            connection.executescript(f"{entrant.reset}; PRAGMA wal_checkpoint(TRUNCATE)")
        return
    run(_execute(url, entrant.reset, "CHECKPOINT"))


def audit(entrant: Entrant, url: str, load: Load) -> None:
    """Compare the rows with what the load must have left.

    Raises:
        AuditError: A saga, a step or an output is missing, or is there twice.
    """
    if entrant.database == "sqlite":
        with sqlite3.connect(url) as connection:
            found = connection.execute(entrant.audit).fetchone()
    else:
        found = run(_fetch(url, entrant.audit))
    wanted = (load.sagas, load.sagas * load.steps, load.sagas * load.steps)
    if tuple(found) != wanted:
        raise AuditError(f"{entrant.name}, {load}: sagas, steps, outputs are {tuple(found)}, must be {wanted}")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine of the parent, which has no event loop of its own."""
    return asyncio.run(work)


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _fetch(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        return await connection.fetchrow(query)
    finally:
        await connection.close()
