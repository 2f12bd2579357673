"""What operators may order, each with who gave the order, and why."""

from __future__ import annotations

from datetime import datetime

from .value import value


@value(frozen=True, slots=True, kw_only=True)
class Order:
    """An operator's command: who gave it, and why."""

    actor: str | None = None
    reason: str | None = None


@value(frozen=True, slots=True, kw_only=True)
class RetryOrdered(Order):
    """Try the failed step again with a fresh count of attempts; None: every one that can be."""

    step_id: str | None = None


@value(frozen=True, slots=True, kw_only=True)
class SkipOrdered(Order):
    """Go on without the step. `acted`: it was done by hand. `output`: what later steps see; `items`: see `Returned`."""

    step_id: str | None = None
    acted: bool = False
    output: str | None = None
    items: int | None = None


@value(frozen=True, slots=True, kw_only=True)
class CompensateOrdered(Order):
    """Undo the saga, or resume an undo that failed. `finished_at`: when it ended; `by_parent`: its parent is undone."""

    finished_at: datetime | None = None
    by_parent: bool = False


@value(frozen=True, slots=True, kw_only=True)
class CancelOrdered(Order):
    """Let what is in flight finish, then undo the saga."""


@value(frozen=True, slots=True, kw_only=True)
class AbortOrdered(Order):
    """Stop at once, and leave every effect as it is."""


@value(frozen=True, slots=True, kw_only=True)
class WaiveOrdered(Order):
    """Accept that the step's effect stays: a named operator takes it on himself."""

    step_id: str


@value(frozen=True, slots=True, kw_only=True)
class FailureOrdered(Order):
    """Do something about a saga that has failed.

    `calls`: a hook of the author's is called, and the action is under way until `ActionEnded`. `closes` and `again`: as
    of `state.Action`.
    """

    action: str
    calls: bool = False
    closes: bool = False
    again: bool = False


@value(frozen=True, slots=True, kw_only=True)
class ActionEnded(Order):
    """The hook of the action that is under way has returned, or raised. `came_off`: it did what it is for.

    `in_doubt`: its owner is gone, and may have done it or not.
    """

    came_off: bool = False
    error: str | None = None
    in_doubt: bool = False


@value(frozen=True, slots=True, kw_only=True)
class RewindOrdered(Order):
    """Undo back to a step, and go forward again from it. `patch`: what changes of the initial data."""

    step_id: str
    patch: str | None = None
    finished_at: datetime | None = None
