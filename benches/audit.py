"""The audit by SQL: a figure counts only when the rows say that all of the work was done."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from typing import Any

import asyncpg

from .cases import Entrant
from .contender import Load


Counts = tuple[int, ...]


class AuditError(Exception):
    """A contender has not written what it was timed for."""


def count(entrant: Entrant, url: str) -> Counts:
    """Return how many sagas are completed, how many steps are recorded, and how many of those have their output."""
    if entrant.database == "sqlite":
        with sqlite3.connect(url) as connection:
            return tuple(connection.execute(entrant.audit).fetchone())
    return tuple(run(_fetch(url, entrant.audit)))


def prepare(entrant: Entrant, url: str) -> None:
    """Tidy up before a run, outside of its time: what the runs before have left to be done is not this one's cost.

    The tables are not emptied: an engine that has just been installed, with nothing known about its tables, is not what is
    measured.
    """
    if entrant.database == "sqlite":
        with sqlite3.connect(url) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    run(_execute(url, "VACUUM (ANALYZE)", "CHECKPOINT"))


def audit(entrant: Entrant, url: str, before: Counts, load: Load) -> None:
    """Compare what the load has added with what it must have added.

    Raises:
        AuditError: A saga, a step or an output is missing, or is there twice.
    """
    found = tuple(now - then for now, then in zip(count(entrant, url), before, strict=True))
    wanted = (load.sagas, load.sagas * load.steps, load.sagas * load.steps)
    if found != wanted:
        raise AuditError(f"{entrant.name}, {load}: sagas, steps, outputs are {found}, must be {wanted}")


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
