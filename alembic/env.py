"""Alembic's environment: which models, which database, and how to connect to it.

The database is ``-x url=…`` or else ``$DATABASE_URL``. This folder is no package: with an ``__init__.py`` it would be
imported in place of Alembic itself.
"""

import asyncio
import os

from sqlalchemy import Connection, String
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from alembic import context, util
from saga_orchestrator import SagaStateMixin
from saga_orchestrator.migrations import render_item


# An application imports its models here. These stand for them; no `from __future__ import annotations` above, since
# SQLAlchemy could not look up their annotations: Alembic runs this file without making it a module.
class Base(DeclarativeBase):
    pass


class OrderSaga(Base, SagaStateMixin):
    __tablename__ = "order_saga"

    customer: Mapped[str | None] = mapped_column(String(100))


def database_url() -> str:
    url = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise util.CommandError("Say which database: set DATABASE_URL, or pass -x url=sqlite+aiosqlite:///sagas.db")
    return url


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_item=render_item)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_online() -> None:
    engine = create_async_engine(database_url(), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)


def print_sql() -> None:
    context.configure(
        url=database_url(),
        target_metadata=Base.metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
else:
    asyncio.run(migrate_online())
