"""The scenes on which these tests play."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.regressions.scene import Scene, scene_on


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """A scene on each kind of database, where time stands still until it is told to pass."""
    async with scene_on(database_url) as opened:
        yield opened


@pytest.fixture
async def timeless(sqlite_url: str) -> AsyncIterator[Scene]:
    """A scene on SQLite alone, for what does not depend on the database."""
    async with scene_on(sqlite_url) as opened:
        yield opened


@pytest.fixture
def ledger() -> list[str]:
    """What the steps of a test have done, in order."""
    return []
