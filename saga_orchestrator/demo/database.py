"""The database of a run: SQLite in a file or PostgreSQL, and its `demo_*` tables, made anew."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, insert, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .. import SagaError
from . import tables
from .saga import Base

_PATIENCE = 20
"""Seconds that a writer waits for others on SQLite, which has one writer at a time among all processes."""


class DemoError(SagaError):
    """The demo cannot be run, or cannot go on."""


def read_url(text: str) -> URL:
    """Return a database's address.

    Raises:
        DemoError: The demo cannot use this database.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise DemoError("--database-url is no database address; write postgresql+asyncpg://user@host/name.") from None
    if url.drivername not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        raise DemoError(
            f"--database-url names the driver '{url.drivername}'; the demo runs on sqlite+aiosqlite:///file.db and on "
            "postgresql+asyncpg://user@host/name."
        )
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").parent.is_dir():
        raise DemoError(f"--database-url names a file in a folder that does not exist: {url.database}")
    return url


def open_engine(url: URL) -> AsyncEngine:
    """Return an engine; nothing is connected yet."""
    if url.get_backend_name() == "sqlite":
        return create_async_engine(url, connect_args={"timeout": _PATIENCE})
    return create_async_engine(url, pool_size=10, max_overflow=10)


async def prepare(engine: AsyncEngine, stock: dict[str, int]) -> None:
    """Drop the tables of earlier runs, create those of this one, and put the stock on the shelf."""
    if engine.dialect.name == "sqlite":
        async with engine.connect() as connection:
            # Readers do not hold up the writer in this mode, which the file remembers.
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    async with engine.begin() as connection:
        for metadata in (tables.metadata, Base.metadata):
            await connection.run_sync(metadata.drop_all)
            await connection.run_sync(metadata.create_all)
        shelf = [{"sku": sku, "initial": units, "on_hand": units} for sku, units in stock.items()]
        await connection.execute(insert(tables.stock), shelf)
