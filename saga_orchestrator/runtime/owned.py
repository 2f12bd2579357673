"""What an application brings: its model and its sessions; and what to say when one of them will not do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, inspect
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Mapper, sessionmaker

from ..errors import SagaDefinitionError
from ..storage.mixins import COLUMNS, SagaStateMixin


def check_own(model: Any, sessions: Any) -> None:
    """Refuse a model that holds no sagas, and what makes no sessions.

    Raises:
        SagaDefinitionError: With what to give instead.
    """
    if model is not None and not (isinstance(model, type) and issubclass(model, SagaStateMixin)):
        raise SagaDefinitionError(
            f"model_class is {model!r:.80}; give it one with the mixin: class OrderSaga(Base, SagaStateMixin)."
        )
    if model is not None:
        _check_mapped(model)
    if sessions is not None and not isinstance(sessions, (async_sessionmaker, sessionmaker)):
        raise SagaDefinitionError(
            f"session_maker is {sessions!r:.80}; give it async_sessionmaker(engine, expire_on_commit=False)."
        )


def _check_mapped(model: type[Any]) -> None:
    """Refuse a model without a table, and one of several classes over a table, whose discriminator nobody writes."""
    mapper: Mapper[Any] | None = inspect(model, raiseerr=False)
    if mapper is None:
        raise SagaDefinitionError(
            f"model_class is {model.__name__}, which is not mapped: it is abstract, or has no __tablename__."
        )
    column = mapper.polymorphic_on
    is_engines = isinstance(column, Column) and column.name in COLUMNS.c
    if mapper.inherits is not None and not is_engines:
        base, name = mapper.base_mapper.class_.__name__, getattr(column, "name", "the discriminator")
        raise SagaDefinitionError(
            f"model_class is {model.__name__}, which shares a table with {base}; the engine does not write the "
            f"discriminator '{name}', so its sagas could not be read as {model.__name__}. Give model_class={base}, and "
            f"start them with values={{'{name}': {mapper.polymorphic_identity!r}}}."
        )


def session_of(session: Any) -> Any:
    """Return a caller's session; of one that is scoped, the one that its scope has now."""
    return session() if isinstance(session, async_scoped_session) else session
