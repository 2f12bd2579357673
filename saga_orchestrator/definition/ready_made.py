"""Steps that need no class of their author's: constants, savepoints, waits, timers and children."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar, Unpack

from pydantic import BaseModel

from ..errors import SagaDefinitionError
from .awaiting import FAIL, correlated, due, event_step, timer_step
from .child import child_step, given
from .constant import Nothing, constant, savepoint
from .each import EachBuilder
from .input_map import check_input_map
from .options import Refs, StepOptions
from .step import StepRef
from .step_builder import given_by
from .waiting import WaitFor

ModelT = TypeVar("ModelT", bound=BaseModel)


class ReadyMadeBuilder(EachBuilder):
    """Collects steps that are ready made."""

    def add_constant(self, value: Any, *, step_id: str | None = None, after: Refs = None) -> StepRef[Any]:
        """Add a value as a step, and return a reference to it.

        It is recorded when a saga comes to it: a saga keeps the value of its own day when newer code has another.

        Args:
            value: A model, or plain data; the next step finds plain data in `.root`.

        Raises:
            PayloadError: The value cannot be stored.
            SagaDefinitionError: As for a step.
        """
        name = self._free_id(step_id)
        return self.add_step(step=constant(name, value), input_map=lambda _: Nothing(), step_id=name, after=after)

    def add_savepoint(self, step_id: str, *, after: Refs = None) -> StepRef[Any]:
        """Add a step that does nothing, for an operator to go back to: see `SagaAdmin.rewind`."""
        name = self._free_id(step_id)
        return self.add_step(step=savepoint(), input_map=lambda _: Nothing(), step_id=name, after=after)

    def add_event(
        self,
        *event_types: str,
        model: type[ModelT] | None = None,
        correlation: Callable[..., str] | None = None,
        timeout: timedelta | None = None,
        default: Any = FAIL,
        depends_on: Refs = None,
        after: Refs = None,
        step_id: str | None = None,
    ) -> StepRef[ModelT]:
        """Add a step that waits for an event, and return a reference to its payload.

        Args:
            event_types: The first event of one of these ends the wait.
            model: What the payload must be. One that does not fit is refused, and the wait goes on. Without it the
                next step finds the payload, as plain JSON values, in `.root`.
            correlation: Makes the correlation that the event must have, from the outputs of `depends_on` or from an
                `InputContext`. Such an event need not name the saga.
            timeout: How long to wait; for as long as it takes, by default.
            default: The output when nothing has come in time. Without it the step fails then.
            depends_on: As for a step.
            after: As for a step.
            step_id: As for a step.

        Raises:
            SagaDefinitionError: The wait makes no sense; or as for a step.
        """
        name = self._free_id(step_id)
        check_input_map(
            name, correlation or correlated(None), given_by(self._refs(name, "depends_on", depends_on)), str
        )
        step = event_step(event_types, model, timeout, default)
        return self.add_step(
            step=step, input_map=correlated(correlation), depends_on=depends_on, after=after, step_id=name
        )

    def add_timer(
        self,
        delay: timedelta | None = None,
        *,
        until: datetime | Callable[..., datetime] | None = None,
        depends_on: Refs = None,
        after: Refs = None,
        step_id: str | None = None,
    ) -> StepRef[Any]:
        """Add a step that waits for a time, durably: nothing of it is lost with the process.

        Args:
            delay: How long to wait, from when the saga comes to it.
            until: The moment until which to wait; or what makes it, from the outputs of `depends_on` or from an
                `InputContext`.
            depends_on: As for a step.
            after: As for a step.
            step_id: As for a step.

        Raises:
            SagaDefinitionError: Neither `delay` nor `until` is given, or both; or as for a step.
        """
        name = self._free_id(step_id)
        if (delay is None) is (until is None):
            raise SagaDefinitionError(f"Timer '{name}' needs delay or until, and not both.")
        if delay is not None or not callable(until):
            WaitFor(timeout=delay, until=until)  # type: ignore[arg-type]  # raises if it makes no sense
        return self.add_step(
            step=timer_step(delay), input_map=due(until), depends_on=depends_on, after=after, step_id=name
        )

    def add_child(
        self,
        saga_name: str,
        *,
        input_map: Callable[..., Any],
        output_model: type[ModelT] | None = None,
        detached: bool = False,
        depends_on: Refs = None,
        **options: Unpack[StepOptions],
    ) -> StepRef[ModelT]:
        """Add a step that starts a saga of its own, and waits for its end; return a reference to what that comes to.

        The child is started once, whatever crashes, and fails the step when it does not complete. When this saga is
        undone, so is the child, whether it runs or has completed.

        Args:
            saga_name: As it is registered, in whatever process the step is at work; the newest version is started.
            input_map: Makes the child's `initial_data`, as for `add_saga`.
            output_model: What the output of the child's last step must be. Without it the next step finds that, as
                plain JSON values, in `.root`.
            detached: Do not wait. The output is the child's id, in `.root`, and nothing of this saga reaches it.
            depends_on: As for a step.
            options: As for a step. `compensation=None`, or a kind that is never undone, leaves the child alone.

        Raises:
            SagaDefinitionError: As for a step.
        """
        name = self._free_id(options.get("step_id"))
        check_input_map(name, input_map, given_by(self._refs(name, "depends_on", depends_on)), object)
        step = child_step(saga_name, output_model, options, detached=detached)
        return self.add_step(step=step, input_map=given(input_map), depends_on=depends_on, **options)
