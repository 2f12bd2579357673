"""Tells an operator that a pooler has taken prepared statements away, and which settings help.

asyncpg prepares each statement under a name and uses the name again. A pooler in transaction mode gives each
transaction another server connection, where the name is unknown, or is taken by another client.
"""

from __future__ import annotations

from weakref import WeakSet

from loguru import logger
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

LOST_STATEMENTS = ("26000", "42P05")
"""SQLSTATEs: a prepared statement does not exist; a prepared statement of this name exists already."""
_HINT = (
    "The database answered {state}: {error}. A pooler such as PgBouncer in transaction mode gives each "
    "transaction another server connection, and the statements that asyncpg has prepared stay behind. The sagas stay "
    "due. Turn the caches off: create_async_engine('postgresql+asyncpg://…?prepared_statement_cache_size=0', "
    "connect_args={{'statement_cache_size': 0}}). This is told once."
)


_told: WeakSet[Engine] = WeakSet()


def watch_for_pooler(engine: AsyncEngine) -> None:
    """Log the first lost statement on this engine as what it is, also in a session of the application's."""
    speaks_asyncpg = (engine.dialect.name, engine.dialect.driver) == ("postgresql", "asyncpg")
    if speaks_asyncpg and not event.contains(engine.sync_engine, "handle_error", _look):
        event.listen(engine.sync_engine, "handle_error", _look)


def tell_of_pooler(engine: Engine, error: BaseException) -> None:
    """Log an error, once for each engine, if it says that a prepared statement is lost. Never raises."""
    state = getattr(error, "sqlstate", None)
    if state in LOST_STATEMENTS and engine not in _told:
        _told.add(engine)
        logger.error(_HINT, state=state, error=str(error).partition("\n")[0])


def _look(context: ExceptionContext) -> None:
    if context.engine is not None:
        tell_of_pooler(context.engine, context.original_exception)
