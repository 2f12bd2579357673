"""Sessions of a step: what the application's session_maker makes, on the connection of the step's transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession


def session_on(sessions: Callable[..., Any], engine: AsyncEngine, connection: AsyncConnection) -> AsyncSession:
    """Return a session of the application's own that works on this connection.

    What the application sends to the engine of the sagas goes to the connection; what it sends elsewhere goes there.
    """
    made = sessions(**{**_OURS, "bind": connection})
    session = made if isinstance(made, AsyncSession) else AsyncSession(connection, expire_on_commit=False)
    sync, ours = session.sync_session, connection.sync_connection
    choose = sync.get_bind

    def get_bind(*arguments: Any, **named: Any) -> Engine | Connection:
        chosen = choose(*arguments, **named)
        is_ours = isinstance(chosen, Engine) and chosen.pool is engine.sync_engine.pool
        return ours if is_ours and ours is not None else chosen

    sync.get_bind = get_bind  # type: ignore[method-assign] # a class of the application's may send to its engines
    return session


_OURS = {"join_transaction_mode": "conditional_savepoint", "twophase": False, "autobegin": True}
"""What a session that joins a transaction of the engine's cannot do otherwise."""
