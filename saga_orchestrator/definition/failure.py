"""What is to be done about a saga that has failed: a closed menu, and the author's own code for two of its actions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from ..errors import SagaDefinitionError


class FailureAction(StrEnum):
    """What is done about a saga that has failed."""

    REVERT = "REVERT"
    """Undo what has acted, step by step, by the compensations."""
    CLOSE_ALL = "CLOSE_ALL"
    """Leave the steps alone, and call `close_all`, which closes whatever the saga has opened, all at once."""
    ALERT_HUMAN = "ALERT_HUMAN"
    """Leave the steps alone, and call `alert_human`; the saga stays dirty until somebody has dealt with it."""
    NOOP = "NOOP"
    """Leave everything as it is."""


@dataclass(frozen=True, kw_only=True)
class DirtyState:
    """What a saga is like that has failed, or is stuck, with something left to do.

    Attributes:
        failed_step: The step whose failure turned it, if one did.
        partial_state: What the steps have returned whose effects stand, by step id, as plain JSON values; None of a
            step whose output was never learnt.
    """

    saga_id: UUID
    saga_name: str
    aggregation_id: str
    status: str
    failed_step: str | None
    error: str | None
    partial_state: Mapping[str, Any]


CloseAll = Callable[[UUID], Awaitable[bool]] | Callable[[UUID], bool]
AlertHuman = Callable[[UUID, DirtyState], Awaitable[Any]] | Callable[[UUID, DirtyState], Any]


@dataclass(frozen=True)
class FailurePlan:
    """What a definition says about failure; it calls nothing itself.

    Raises:
        SagaDefinitionError: The action is none, or would have nothing to call.
    """

    action: FailureAction = FailureAction.REVERT
    close_all: CloseAll | None = None
    alert_human: AlertHuman | None = None

    def __post_init__(self) -> None:
        for name in ("close_all", "alert_human"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise SagaDefinitionError(f"{name} is {hook!r}; give it a function.")
            if hook is None and self.action == name.upper():
                raise SagaDefinitionError(f"on_failure={self.action.value} needs {name}=, the function that it calls.")

    @property
    def calls(self) -> bool:
        """Whether the author's code is to be called for a saga that has failed."""
        return self.action in (FailureAction.CLOSE_ALL, FailureAction.ALERT_HUMAN)


def action_of(on_failure: Any, *, compensate_on_failure: bool) -> FailureAction:
    """Return the action that a builder's settings mean.

    Raises:
        SagaDefinitionError: There is no such action, or the two contradict each other.
    """
    if on_failure is None:
        return FailureAction.REVERT if compensate_on_failure else FailureAction.NOOP
    try:
        action = FailureAction(on_failure)
    except ValueError:
        raise SagaDefinitionError(
            f"on_failure is {on_failure!r}; it must be one of {', '.join(FailureAction)}."
        ) from None
    if action is FailureAction.REVERT and not compensate_on_failure:
        raise SagaDefinitionError("on_failure=REVERT undoes a saga, compensate_on_failure=False does not; drop one.")
    return action
