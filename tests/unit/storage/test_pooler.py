"""Statements that a pooler has taken away, and drivers that are not tested, are told by name."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from saga_orchestrator import SagaDefinitionError
from saga_orchestrator.storage.dialect import dialect_for, is_passing
from saga_orchestrator.storage.pooler import LOST_STATEMENTS, tell_of_pooler, watch_for_pooler
from tests.support import logs

URL = "postgresql+asyncpg://nobody@127.0.0.1:1/none"


class RefusedError(Exception):
    """What asyncpg raises, as far as it is looked at."""

    def __init__(self, state: str) -> None:
        super().__init__(f"prepared statement: {state}\nHINT: many lines")
        self.sqlstate = state


@pytest.fixture
def said() -> Iterator[list[str]]:
    with logs.logged() as lines:
        yield lines


def test_a_lost_statement_is_told_once_with_the_settings_that_help(said: list[str]) -> None:
    """A busy engine meets it in every statement, and one line is enough."""
    engine = create_async_engine(URL).sync_engine

    for state in (*LOST_STATEMENTS, "26000"):
        tell_of_pooler(engine, RefusedError(state))

    assert len(said) == 1
    assert "'statement_cache_size': 0" in said[0]
    assert "prepared_statement_cache_size=0" in said[0]


def test_each_engine_tells_for_itself(said: list[str]) -> None:
    """One engine with the right settings does not hide another without."""
    for _ in range(2):
        tell_of_pooler(create_async_engine(URL).sync_engine, RefusedError("42P05"))

    assert len(said) == 2


def test_other_errors_are_not_the_poolers(said: list[str]) -> None:
    """An error without one of the two codes is told by whoever meets it."""
    engine = create_async_engine(URL).sync_engine

    tell_of_pooler(engine, RefusedError("23505"))
    tell_of_pooler(engine, ValueError("prepared statement"))

    assert said == []


def test_an_engine_is_watched_once(said: list[str]) -> None:
    """A process may make an orchestrator for each request on one engine."""
    engine = create_async_engine(URL)
    for _ in range(3):
        watch_for_pooler(engine)

    listeners = list(engine.dialect.dispatch.handle_error)
    for listener in listeners:
        listener(SimpleNamespace(engine=engine.sync_engine, original_exception=RefusedError("26000")))

    assert len(listeners) == 1
    assert len(said) == 1


def test_only_asyncpg_prepares_statements_that_can_be_lost() -> None:
    """SQLite's engine gets no listener."""
    engine = create_async_engine("sqlite+aiosqlite:///none.db")
    watch_for_pooler(engine)

    assert not list(engine.dialect.dispatch.handle_error)


@pytest.mark.parametrize("state", LOST_STATEMENTS)
def test_a_lost_statement_is_the_databases_fault(state: str) -> None:
    """The saga stays due: nothing about its row is wrong."""
    assert is_passing(DBAPIError("SELECT 1", None, RefusedError(state)))


@pytest.mark.parametrize(("database", "driver", "tested"), [("postgresql", "psycopg", "asyncpg")])
def test_a_driver_that_is_not_tested_is_refused_by_name(database: str, driver: str, tested: str) -> None:
    """The error names the driver, and the one to use."""
    engine: Any = SimpleNamespace(dialect=SimpleNamespace(name=database, driver=driver))

    with pytest.raises(SagaDefinitionError, match=f"'{driver}'.*{database}\\+{tested}://"):
        dialect_for(engine, None)


def test_psycopg_itself_is_refused() -> None:
    """The real engine of psycopg 3, where it is installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed; `make matrix` runs this with it")

    with pytest.raises(SagaDefinitionError, match="'psycopg'"):
        dialect_for(create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"), None)
