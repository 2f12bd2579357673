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

    The tables are not emptied: an engine that has just been installed, on tables of which the planner knows nothing, is
    not what is measured.
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


def same_shape(ours: str, floor: str) -> None:
    """Compare the floor's tables with this library's: they must differ in nothing but their names.

    Raises:
        AuditError: They do, so that the floor would not write what the library has to write.
    """
    for table in ("saga", "saga_history"):
        shapes = [set(run(_rows(url, _SHAPE, f"{name}_{table}"))) for url, name in ((ours, "bench"), (floor, "floor"))]
        if shapes[0] != shapes[1]:
            raise AuditError(f"{table} of this library and of the floor differ: {sorted(shapes[0] ^ shapes[1])}")


_SHAPE = """
SELECT column_name || ' ' || udt_name || ' ' || is_nullable FROM information_schema.columns WHERE table_name = $1
UNION
SELECT regexp_replace(replace(indexdef, $1, 'T'), 'INDEX \\S+', 'INDEX') FROM pg_indexes WHERE tablename = $1
UNION
SELECT regexp_replace(pg_get_constraintdef(oid), '(bench|floor)_saga', 'T', 'g') FROM pg_constraint
WHERE conrelid = ($1::text)::regclass"""


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine of the parent, which has no event loop of its own."""
    return asyncio.run(work)


async def _rows(url: str, query: str, table: str) -> list[str]:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        return [row[0] for row in await connection.fetch(query, table)]
    finally:
        await connection.close()


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
