"""Writes a saga down, step by step and part by part, and refuses what could not be carried out or taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, Unpack

from pydantic import BaseModel

from ..errors import SagaDefinitionError
from . import checks
from .awaiting import FAIL, correlated, due, event_step, timer_step
from .child import child_step, given
from .choice import REFUSE, Otherwise, branches_of, choice
from .constant import Nothing, constant, savepoint
from .each import EachBuilder
from .failure import AlertHuman, CloseAll, FailureAction, FailurePlan, action_of
from .finish import Finish
from .graph import Graph, Node
from .input_map import check_input_map
from .options import Refs, StepOptions
from .parts import steps_of
from .saga import SagaDefinition
from .step import InputContext, StepDefinition, StepRef
from .step_builder import given_by
from .waiting import WaitFor

ModelT = TypeVar("ModelT", bound=BaseModel)


class SagaBuilder(EachBuilder):
    """Builds a frozen `SagaDefinition`.

    Args:
        compensate_on_failure: False leaves the effects of a failed saga standing, for a person to decide.
        on_failure: What is done about a saga that has failed, in one word: REVERT undoes it, and NOOP leaves it
            standing; CLOSE_ALL and ALERT_HUMAN leave it standing, too, and call the function of that name, durably and
            at least once.
        close_all: Closes all that a saga has opened, and returns True when nothing of it is left. Given its id.
        alert_human: Tells somebody of a saga that has failed. Given its id and a `DirtyState`.
        version: The number that tells sagas of this definition from those of an older one of the same name.
        max_recoveries: How many crashes in a row, without any progress, a saga may cause before it is quarantined.
        deadline: How long a saga may take. One that is not past its pivot by then lets the steps in flight end, and is
            undone (or left standing, where it is to be when it fails). One that is past it goes on.
        undo_window: How long after its end a saga that has completed can still be undone, or rewound, by an operator.
            Not at all by default.
        commit: When a saga whose steps have all succeeded is confirmed, and cannot be undone any more: "auto" at once;
            "manual" when `orchestrator.commit` says so, while `reject` has it undone.
        commit_timeout: Of a manual one, how long to wait for that; then it is undone.
    """

    def __init__(
        self,
        *,
        compensate_on_failure: bool = True,
        version: int = 1,
        max_recoveries: int = 5,
        deadline: timedelta | None = None,
        undo_window: timedelta | None = None,
        commit: Literal["auto", "manual"] = "auto",
        commit_timeout: timedelta | None = None,
        on_failure: FailureAction | None = None,
        close_all: CloseAll | None = None,
        alert_human: AlertHuman | None = None,
    ) -> None:
        super().__init__()
        checks.check_settings(compensate_on_failure, version, max_recoveries)
        checks.check_timeout("the saga", "deadline", deadline)
        checks.check_timeout("the saga", "undo_window", undo_window)
        self._deadline, self._undo_window = deadline, undo_window
        self._finish = Finish(commit, commit_timeout)
        action = action_of(on_failure, compensate_on_failure=compensate_on_failure)
        self._failure = FailurePlan(action, close_all, alert_human)
        self._compensate_on_failure = action is FailureAction.REVERT
        self._version = version
        self._max_recoveries = max_recoveries

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

    def add_saga(
        self,
        definition: SagaDefinition,
        *,
        input_map: Callable[..., Any],
        depends_on: Refs = None,
        after: Refs = None,
        namespace: str | None = None,
    ) -> StepRef[Any]:
        """Add all the steps of another saga, as a part of this one, and return a reference to its last step's output.

        The part has no row of its own: it fails, waits and is undone with the saga that it is a part of. Its steps are
        called `namespace.step_id`; they see what the part was given as their `initial_data`, and only each other's
        outputs. One definition may be a part several times, under several namespaces.

        Args:
            input_map: Makes the part's `initial_data`, a model or plain data, from the outputs of `depends_on`, or from
                an `InputContext`. Called once: what it returns is recorded.
            depends_on: As for a step.
            after: As for a step.
            namespace: `step_<n>` by default.

        Raises:
            SagaDefinitionError: The part ends with several steps side by side, or is to be left standing when it fails
                and this saga is not; or as for a step.
        """
        name = self._free_id(namespace)
        checks.check_part(name, definition, compensate_on_failure=self._compensate_on_failure)
        sources = self._refs(name, "depends_on", depends_on)
        check_input_map(name, input_map, given_by(sources), object)
        first = Node(step_id=name, after=self._before(name, after, sources))
        (end,) = self._splice(steps_of(definition, first, sources, input_map, self._owner))
        self._frontier.add(end)
        return self._ref(end)

    def add_choice(
        self,
        *,
        choose: Callable[..., Any],
        branches: Mapping[str, SagaDefinition],
        otherwise: Otherwise = REFUSE,
        input_map: Callable[[InputContext], Any] | None = None,
        depends_on: Refs = None,
        after: Refs = None,
        step_id: str | None = None,
    ) -> StepRef[Any]:
        """Add a choice between several sagas, of which one becomes a part of this one; return a ref to the answer.

        The answer is recorded, and stays. The steps of the other branches are OMITTED. What is added next comes after
        whichever branch was taken. Each branch is called `step_id.label`; see `add_saga` for what its steps see.

        Args:
            choose: Answers with the label of a branch, given the outputs of `depends_on`, or an `InputContext`.
            branches: The definitions, by label.
            otherwise: What an answer takes that is no label: a definition, or None for nothing at all. Without it
                such an answer is an error, and the step fails.
            input_map: Makes the `initial_data` of the branch; the saga's own by default.
            depends_on: As for a step.
            after: As for a step.
            step_id: As for a step.

        Raises:
            SagaDefinitionError: As for `add_saga`; or there is no branch.
        """
        name = self._free_id(step_id)
        parts = branches_of(name, branches, otherwise)
        for label, part in parts.items():
            checks.check_part(f"{name}.{label}", part, compensate_on_failure=self._compensate_on_failure)
        sources = self._refs(name, "depends_on", depends_on)
        check_input_map(name, choose, given_by(sources), object)
        node = Node(step_id=name, after=self._before(name, after, sources))
        steps = [choice(node, sources, choose, branches.keys(), otherwise)]
        for label, part in parts.items():
            first = Node(step_id=f"{name}.{label}", after=(name,), branches=((name, label),))
            steps += steps_of(part, first, (), input_map or _same, self._owner)
        self._ends[name] = self._splice(steps)
        self._frontier.add(*self._ends[name])
        return self._ref(name)

    def build(self) -> SagaDefinition:
        """Return the definition, frozen; the builder may go on and build another.

        Raises:
            SagaDefinitionError: There are no steps, a parallel block is still open, or some failure could be answered
                neither by going on nor by going back (see `StepKind`).
        """
        if not self._steps:
            raise SagaDefinitionError("Saga must contain at least one step: call add_step before build.")
        if self._frontier.is_open:
            raise SagaDefinitionError("build() was called inside a `with builder.parallel()` block; call it after.")
        steps = tuple(self._steps.values())
        steps += self._finish.question(steps)
        graph = self._graph(steps)
        checks.check_fans(graph)
        checks.check_way_back(graph.unfolded(dict.fromkeys(graph.fans, 2)))
        steps += self._finish.rest(steps)
        for step in steps[len(self._steps) :]:
            checks.check_step_id(step.step_id, self._steps)
        return SagaDefinition(steps, self._graph(steps), self._version, self._finish.commit, self._failure)

    def _graph(self, steps: tuple[StepDefinition, ...]) -> Graph:
        return Graph.of(
            *(step.node for step in steps),
            compensate_on_failure=self._compensate_on_failure,
            max_recoveries=self._max_recoveries,
            deadline=self._deadline,
            undo_window=self._undo_window,
            fans={step.step_id: step.fan for step in steps if step.fan is not None},
        )


def _same(ctx: InputContext) -> Any:
    return ctx.initial_data
