"""What a definition says about failure, and what it may not say."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from saga_orchestrator import DirtyState, FailureAction, SagaBuilder, SagaDefinition, SagaDefinitionError

from .sums import Pay, Sum


async def close_all(saga_id: UUID) -> bool:
    raise NotImplementedError


def alert_human(saga_id: UUID, dirty: DirtyState) -> None:
    raise NotImplementedError


def one(**settings: Any) -> SagaDefinition:
    builder = SagaBuilder(**settings)
    builder.add_step(step=Pay(), input_map=lambda ctx: Sum(), step_id="pay")
    return builder.build()


@pytest.mark.parametrize(
    ("settings", "action", "is_undone"),
    [
        ({}, FailureAction.REVERT, True),
        ({"compensate_on_failure": False}, FailureAction.NOOP, False),
        ({"on_failure": FailureAction.REVERT}, FailureAction.REVERT, True),
        ({"on_failure": "NOOP"}, FailureAction.NOOP, False),
        ({"on_failure": FailureAction.CLOSE_ALL, "close_all": close_all}, FailureAction.CLOSE_ALL, False),
        ({"on_failure": FailureAction.ALERT_HUMAN, "alert_human": alert_human}, FailureAction.ALERT_HUMAN, False),
    ],
)
def test_d5_one_word_says_what_is_done_about_a_failure(
    settings: dict[str, Any], action: FailureAction, is_undone: bool
) -> None:
    """Only REVERT undoes a saga by itself; the older setting still says the same as ever."""
    definition = one(**settings)

    assert (definition.failure.action, definition.compensate_on_failure) == (action, is_undone)
    assert definition.failure.calls is ("close_all" in settings or "alert_human" in settings)


def test_d1_hooks_may_be_there_for_operators_alone() -> None:
    """A saga that is undone by itself may have them, too."""
    plan = one(close_all=close_all, alert_human=alert_human).failure

    assert (plan.action, plan.close_all, plan.alert_human) == (FailureAction.REVERT, close_all, alert_human)
    assert not plan.calls


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"on_failure": "EXPLODE"}, "on_failure is 'EXPLODE'; it must be one of REVERT, CLOSE_ALL, ALERT_HUMAN, NOOP"),
        ({"on_failure": "REVERT", "compensate_on_failure": False}, "drop one"),
        ({"on_failure": "CLOSE_ALL"}, "on_failure=CLOSE_ALL needs close_all="),
        ({"on_failure": "ALERT_HUMAN", "close_all": close_all}, "on_failure=ALERT_HUMAN needs alert_human="),
        ({"close_all": True}, "close_all is True; give it a function"),
    ],
)
def test_d5_what_could_not_be_done_is_refused(settings: dict[str, Any], complaint: str) -> None:
    """When the builder is made."""
    with pytest.raises(SagaDefinitionError, match=complaint):
        SagaBuilder(**settings)
