"""How a saga is finished: what its steps have prepared is confirmed, or all of it is undone.

The steps of the finish come after all that the author wrote: where he wants to be asked first, a wait for the decision;
then the point of no return; then, side by side, one call of `confirm` for each step that has one. They are steps like
any other, so a crash, a retry and an operator's order find them where the kernel knows its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel

from ..errors import PermanentError, SagaDefinitionError
from . import checks
from .constant import Nothing
from .graph import Node, StepKind
from .recording import Records
from .retry import ExponentialRetry
from .step import BaseStep, StepDefinition
from .waiting import Event, WaitFor

COMMIT, REJECT = "saga.commit", "saga.reject"
"""The events that decide; the point of no return has the name of the first."""
DECISION = "saga.decision"
"""The step that waits for one of them."""
PATIENT = ExponentialRetry(max_attempts=20, base_delay=timedelta(seconds=1), max_delay=timedelta(minutes=10))
"""How a confirm is tried that says nothing else: for two hours."""


class Decision(BaseModel):
    """Who has decided, and why."""

    actor: str | None = None
    reason: str | None = None


class Decide(BaseStep[Nothing, Decision]):
    """Waits until somebody commits the saga, and fails when it is rejected, or nobody has decided in time."""

    kind = StepKind.READ_ONLY

    def __init__(self, timeout: timedelta | None) -> None:
        self._timeout = timeout

    async def execute(self, inp: Nothing) -> Decision | WaitFor:
        return WaitFor(COMMIT, REJECT, timeout=self._timeout)

    async def on_event(self, inp: Nothing, event: Event[Decision]) -> Decision:
        if event.type == REJECT:
            why = f": {event.payload.reason}" if event.payload.reason else ""
            raise PermanentError(f"rejected by {event.payload.actor or 'nobody by name'}{why}")
        return event.payload


class Commit(Records[Nothing]):
    """The point of no return: from here on the saga is confirmed, and nothing of it is undone."""


class Confirm(BaseStep[Nothing, Nothing]):
    """The `confirm` of another step, in a step of its own. Whoever performs it calls that."""

    kind = StepKind.RETRIABLE

    async def execute(self, inp: Nothing) -> Nothing:
        raise NotImplementedError


@dataclass(frozen=True)
class Finish:
    """How the sagas of a definition are finished.

    Args:
        commit: "auto" as soon as all steps have succeeded; "manual" when somebody says so.
        timeout: How long that somebody has; a saga that nobody has committed by then is undone.

    Raises:
        SagaDefinitionError: It is neither, or there is a timeout that nobody would wait for.
    """

    commit: Literal["auto", "manual"] = "auto"
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        if self.commit not in ("auto", "manual"):
            raise SagaDefinitionError(f"commit is {self.commit!r}; it must be 'auto' or 'manual'.")
        checks.check_timeout("the saga", "commit_timeout", self.timeout)
        if self.timeout is not None and self.commit == "auto":
            raise SagaDefinitionError("commit_timeout is for commit='manual': one that is 'auto' waits for nobody.")

    def question(self, steps: Sequence[StepDefinition]) -> tuple[StepDefinition, ...]:
        """Return the step that waits for the decision, if there is one to be made.

        Raises:
            SagaDefinitionError: By then there would be nothing left to decide.
        """
        if self.commit == "auto":
            return ()
        if final := [step.step_id for step in steps if step.node.kind.is_final]:
            raise SagaDefinitionError(
                f"Step '{final[0]}' is never undone, so that a saga with commit='manual' could not be rejected after "
                "it. Make it COMPENSATABLE, or let its confirm do what is final."
            )
        return (_step(Decide(self.timeout), DECISION, _ends(steps), StepKind.READ_ONLY),)

    def rest(self, steps: Sequence[StepDefinition]) -> tuple[StepDefinition, ...]:
        """Return the point of no return, and the confirms that come after it."""
        confirmed = [step for step in steps if step.shape.confirms]
        if not confirmed and self.commit == "auto":
            return ()
        is_past_another = any(step.node.kind.is_final for step in steps)
        kind = StepKind.RETRIABLE if is_past_another else StepKind.PIVOT
        return (_step(Commit(), COMMIT, _ends(steps), kind), *map(_confirmation, confirmed))


def _step(step: BaseStep[Nothing, Any], step_id: str, after: tuple[str, ...], kind: StepKind) -> StepDefinition:
    node = Node(step_id=step_id, after=after, kind=kind, nothing_to_undo=True, name=type(step).__name__)
    return StepDefinition(step_id=step_id, step=step, input_map=_nothing, depends_on=(), node=node, is_finish=True)


def _confirmation(of: StepDefinition) -> StepDefinition:
    """Return the step that confirms another. It runs also where that one was not chosen, and then has nothing to do."""
    node = Node(
        step_id=f"{of.step_id}.confirm",
        after=(COMMIT,),
        kind=StepKind.RETRIABLE,
        transactional=of.node.transactional,
        retry=of.confirm_retry or PATIENT,
        timeout=of.confirm_timeout,
        name=of.step_name,
    )
    return StepDefinition(
        step_id=node.step_id,
        step=Confirm(),
        input_map=_nothing,
        depends_on=(),
        node=node,
        confirms=of.step_id,
        is_finish=True,
    )


def _ends(steps: Sequence[StepDefinition]) -> tuple[str, ...]:
    """Return the steps that no other comes after."""
    before = {step_id for step in steps for step_id in step.node.after}
    return tuple(step.step_id for step in steps if step.step_id not in before)


def _nothing(_: object) -> Nothing:
    return Nothing()
