"""Connections of SQLite stop once, so that a process can end.

SQLAlchemy closes a broken connection, and stops it by force if it is cancelled while it does that. aiosqlite then stops
the thread of the connection twice, and the second stop waits for a thread that has ended. That task can never end, and
`asyncio.run` waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


class _StopsOnce(aiosqlite.Connection):
    """A connection whose second stop is the first one."""

    _stopping: tuple[asyncio.Future[Any] | None] | None = None

    def stop(self) -> asyncio.Future[Any] | None:
        if self._stopping is None:
            self._stopping = (super().stop(),)
        return self._stopping[0]


def stop_once(engine: AsyncEngine) -> None:
    """Have each connection of an engine of SQLite stop once, also the connections that its application uses."""
    is_sqlite = engine.dialect.driver == "aiosqlite" and hasattr(aiosqlite.Connection, "stop")
    if is_sqlite and not event.contains(engine.sync_engine, "checkout", _adopt):
        event.listen(engine.sync_engine, "checkout", _adopt)


def _adopt(dbapi_connection: object, record: Any, proxy: object) -> None:
    driver = record.driver_connection
    if type(driver) is aiosqlite.Connection:
        driver.__class__ = _StopsOnce
