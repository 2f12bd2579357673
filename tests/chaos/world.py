"""The application under chaos: how it is connected, and the orders that it takes."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from saga_orchestrator import SagaOrchestrator
from tests.chaos.graphs import CHILD, GRAPHS, PARENT, STARTED, fan_of
from tests.chaos.sagas import definitions
from tests.chaos.tables import ChaosSaga

LEASE = timedelta(seconds=1.5)
_FAILING = ("declined", "declined unheard", "always late")
_PASSING = ("transient", "flaky", "silent", "late", "unheard", "torn")
_FATES = {  # what a step may meet, besides what every step may
    "pack": ("slow", "torn", "transient", "flaky", "silent", "unheard"),  # it has no timeout
    "notify": ("stubborn", "transient", "silent", "late", "unheard"),
    "quote": ("transient",),
    "book": ("transient", "late"),
    "insure": (*_FAILING, "late"),  # after the child, which then has to be undone
}
_UNDO_FATES = ("transient", "transient", "unheard", "late", "broken")
_MOST_ITEMS = 4


def connect(url: str) -> AsyncEngine:
    """Return an engine as an application would make it: nothing is tuned to survive."""
    return create_async_engine(url, pool_size=8, max_overflow=8)


def orchestrate(engine: AsyncEngine, ledger_port: int) -> SagaOrchestrator[ChaosSaga]:
    """Return an orchestrator that knows all sagas."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    orchestrator = SagaOrchestrator[ChaosSaga](model_class=ChaosSaga, session_maker=sessions, execution_lease=LEASE)
    for name, definition in definitions(ledger_port).items():
        orchestrator.register(name, definition)
    return orchestrator


def draw_order(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a saga's name and initial data, with what its steps will meet."""
    saga_name = chance.choice(STARTED)
    return saga_name, {"steps": _drawn_steps(chance, saga_name)}


def _drawn_steps(chance: random.Random, saga_name: str) -> dict[str, Any]:
    steps: dict[str, Any] = {place: _drawn(chance, place) for place in GRAPHS[saga_name] if fan_of(place) is None}
    for fan in filter(None, map(fan_of, GRAPHS[saga_name])):
        steps[fan] = [_drawn(chance, fan) for _ in range(chance.randint(0, _MOST_ITEMS))]
    if saga_name == "bundle":
        steps |= {step_id: _drawn(chance, step_id) for step_id in ("quote", "book")}
    if saga_name == PARENT:
        steps[CHILD] = _drawn_steps(chance, CHILD)
    return steps


def _drawn(chance: random.Random, step_id: str) -> dict[str, Any]:
    fates = _FATES.get(step_id, _FAILING + _PASSING)
    return {
        "fate": chance.choice(fates) if chance.random() < 0.3 else "well",
        "undo_fate": chance.choice(_UNDO_FATES) if chance.random() < 0.3 else "well",
        "pause": chance.choice((0.0, 0.005, 0.02, 0.05)),
    }
