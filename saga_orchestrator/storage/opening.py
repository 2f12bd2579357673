"""Opening a store: from what an application has, or a reason why that will not do."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ..errors import SagaDefinitionError
from .dialect import Clock
from .limits import Timeouts
from .store import SagaStore


def store_of(
    model: type[Any] | None,
    session_maker: async_sessionmaker[AsyncSession] | None,
    clock: Clock | None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - it cannot change
) -> SagaStore:
    """Return the store of a model, on the engine that its sessions are bound to.

    Raises:
        SagaDefinitionError: One of the two is missing, or the sessions are bound to something else.
    """
    if model is None or session_maker is None:
        raise SagaDefinitionError("An engine needs model_class and session_maker.")
    bind = session_maker.kw.get("bind") or _bound_by_model(model, session_maker)
    if not isinstance(bind, AsyncEngine):
        raise SagaDefinitionError(
            f"session_maker is bound to {type(bind).__name__}; the engine needs transactions of its own, "
            "so bind it to an AsyncEngine."
        )
    return SagaStore(model, bind, clock, session_maker, timeouts)


def _bound_by_model(model: type[Any], session_maker: async_sessionmaker[AsyncSession]) -> AsyncEngine:
    """Return the engine that sessions use for this model, of those that they are bound to by `binds`."""
    try:
        return AsyncEngine(session_maker().get_bind(model))  # type: ignore[arg-type]
    except UnboundExecutionError as error:
        raise SagaDefinitionError(
            f"session_maker has no engine for {model.__name__}; make it with "
            "async_sessionmaker(create_async_engine(url), expire_on_commit=False)."
        ) from error
