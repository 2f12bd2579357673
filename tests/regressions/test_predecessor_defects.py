"""What python-saga-orchestrator 0.1.0 got wrong, letter by letter (a to r), each forced and each refuted."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from saga_orchestrator import (
    ActiveSagaAlreadyExistsError,
    FixedRetry,
    SagaBuilder,
    SagaDefinitionError,
    SagaStateError,
    SagaStatus,
)
from tests.regressions.scene import (
    LATER,
    NAME,
    SECOND,
    MortalStore,
    OneWay,
    OrderSaga,
    Receipt,
    Scene,
    Undoable,
    UndoableBlindly,
    admin_of,
    asked,
    fails,
    forever,
    mortal,
    saga,
)

ORDER: dict[str, Any] = {"saga_name": NAME, "initial_data": {"order_id": "o-1"}, "aggregation_id": "o-1"}


@pytest.mark.parametrize("commits", [True, False], ids=["after-its-commit", "before-its-commit"])
@pytest.mark.parametrize("survives", [1, 2, 3])
async def test_a_crash_between_two_steps_strands_nothing(
    scene: Scene, ledger: list[str], survives: int, commits: bool
) -> None:
    """Wherever the process dies, another one finds the saga by `run_due` alone and brings it to its end."""
    definition = saga(Undoable("reserve", ledger), Undoable("charge", ledger), Undoable("ship", ledger))
    store = MortalStore(scene.store(), survives=survives, commits=commits)
    doomed, heir = scene.orchestrator(definition, store=store), scene.orchestrator(definition)
    async with mortal(lambda: doomed.start(**ORDER)):
        await store.dead.wait()
    assert await heir.run_due() == (0 if (survives, commits) == (3, True) else 0)
    scene.pass_time()
    await heir.run_due()
    (found,) = (await admin_of(heir).list_sagas()).items
    assert found.status is SagaStatus.COMPLETED
    assert list(dict.fromkeys(ledger)) == ["reserve", "charge", "ship"]
    assert len(ledger) <= 4
