"""The public names of python-saga-orchestrator 0.1.0 are here, are called in the same way, and warn of nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

import saga_orchestrator
from saga_orchestrator import (
    ExponentialRetry,
    FixedRetry,
    InputContext,
    NoRetry,
    SagaAdmin,
    SagaBuilder,
    SagaOrchestrator,
    SagaStatus,
    StepDefinition,
    StepInputMap,
    StepRef,
)
from tests.regressions.scene import NAME, Asked, OrderSaga, Receipt, Scene, Undoable, admin_of, asked, saga

NAMES = (
    *("ActiveSagaAlreadyExistsError", "BaseStep", "ExponentialRetry", "FixedRetry", "InputContext", "NoRetry"),
    *("RetryPolicy", "SagaAdmin", "SagaAdminSnapshot", "SagaBuilder", "SagaDefinition", "SagaDefinitionError"),
    *("SagaEngine", "SagaNotFoundError", "SagaOrchestrator", "SagaSnapshot", "SagaStateError", "SagaStateMixin"),
    *("SagaStatus", "StepDefinition", "StepInputMap", "StepRef", "TypeValidationError", "__version__"),
)
"""All but `SagaRepository`, whose place the page on coming from there tells."""

COLUMNS = (
    *("id", "aggregation_id", "trace_id", "status", "current_step_index", "step_execution_token", "context"),
    *("step_history", "deadline_at", "retry_counter", "last_error", "created_at", "updated_at"),
)
ORDERS = ("get_saga", "retry_step", "skip_step", "compensate_step", "abort")
SHOWN = (
    *("id", "aggregation_id", "trace_id", "status", "current_step_index", "step_execution_token"),
    *("retry_counter", "deadline_at", "last_error"),
)


def test_each_name_is_public_and_imported_without_a_warning() -> None:
    """In a new process, where a warning is an error."""
    assert set(NAMES) <= set(saga_orchestrator.__all__)
    program = f"from saga_orchestrator import {', '.join(NAMES)}"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_a_step_is_added_with_every_argument_of_then(ledger: list[str]) -> None:
    """`add_step` returns a StepRef, and the definition keeps what was said."""
    second = timedelta(seconds=1)

    def first_map(ctx: InputContext) -> Asked:
        return asked(ctx)

    def second_map(out: Receipt) -> dict[str, Any]:
        return {"order_id": out.number}

    typed: StepInputMap[Asked] = first_map
    builder = SagaBuilder(compensate_on_failure=False)
    ref = builder.add_step(
        step=Undoable("reserve", ledger),
        input_map=typed,
        timeout=second,
        retry_policy=FixedRetry(max_attempts=2, delay=second),
        depends_on=None,
        step_id="reserve",
    )
    builder.add_step(step=Undoable("charge", ledger), input_map=second_map, depends_on=ref)
    definition = builder.build()

    assert (ref.step_id, ref.output_model) == ("reserve", Receipt)
    assert isinstance(ref, StepRef)
    first, last = definition.steps
    assert isinstance(first, StepDefinition)
    assert (first.step_id, first.input_model, first.output_model) == ("reserve", Asked, Receipt)
    assert (first.timeout, first.retry_policy) == (second, FixedRetry(max_attempts=2, delay=second))
    assert (last.step_id, definition.compensate_on_failure) == ("step_1", False)


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [
        (NoRetry(), []),
        (FixedRetry(max_attempts=3, delay=timedelta(seconds=5)), [5, 5]),
        (FixedRetry(3, delay=timedelta(seconds=5)), [5, 5]),
        (ExponentialRetry(max_attempts=4, base_delay=timedelta(seconds=2)), [2, 4, 8]),
        (
            ExponentialRetry(
                max_attempts=4, base_delay=timedelta(seconds=3), multiplier=3.0, max_delay=timedelta(seconds=20)
            ),
            [3, 9, 20],
        ),
    ],
)
def test_a_policy_tells_its_pauses_by_next_delay(policy: Any, pauses: list[int]) -> None:
    """The first failure is number 1; a policy without another attempt says None."""
    told = [policy.next_delay(failures) for failures in range(1, len(pauses) + 2)]
    assert told == [*(timedelta(seconds=pause) for pause in pauses), None]


async def test_every_call_and_field_of_then_is_there(timeless: Scene, ledger: list[str]) -> None:
    """The orchestrator, the operator's view, the row and both snapshots."""
    orchestrator = SagaOrchestrator[OrderSaga](
        model_class=OrderSaga, session_maker=timeless.sessions, execution_lease=timedelta(minutes=5)
    )
    orchestrator.register(NAME, saga(Undoable("reserve", ledger)))
    saga_id = await orchestrator.start(
        saga_name=NAME, initial_data={"order_id": "1"}, aggregation_id="1", trace_id="t-1"
    )
    await orchestrator.resume(saga_id)
    assert await orchestrator.run_due(limit=10) == 0
    assert await orchestrator.notify(saga_id=saga_id, token=uuid4(), event=None) is False
    snapshot = await orchestrator.get_snapshot(saga_id)
    found = await SagaAdmin[OrderSaga](orchestrator.engine).get_saga(saga_id)
    assert [getattr(found, name) for name in SHOWN] == [getattr(snapshot, name) for name in SHOWN]
    assert (found.context["initial_data"], len(found.step_history)) == ({"order_id": "1"}, 1)
    orders: list[Callable[..., Any]] = [getattr(admin_of(orchestrator), name) for name in ORDERS]
    assert all(callable(order) for order in orders)
    assert all(hasattr(OrderSaga, name) for name in COLUMNS)
    await orchestrator.aclose()


def test_the_statuses_of_then_are_texts_and_know_their_ends() -> None:
    """A status equals its name; FAILED and COMPLETED are ends, the others are not."""
    ends = {"RUNNING": False, "SUSPENDED": False, "COMPENSATING": False, "FAILED": True, "COMPLETED": True}
    for name, over in ends.items():
        assert SagaStatus(name) == name
        assert SagaStatus[name].is_terminal is over
