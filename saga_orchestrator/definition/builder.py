"""Writes a saga down, step by step and part by part, and refuses what could not be carried out or taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from ..errors import SagaDefinitionError
from . import checks
from .choice import REFUSE, Otherwise, branches_of, choice
from .context import InputContext
from .failure import AlertHuman, CloseAll, FailureAction, FailurePlan, action_of
from .finish import Finish
from .graph import Graph, Node
from .input_map import check_input_map
from .models import check_models
from .options import Refs
from .parts import steps_of
from .ready_made import ReadyMadeBuilder
from .saga import SagaDefinition
from .step import StepDefinition, StepRef
from .step_builder import given_by

ModelT = TypeVar("ModelT", bound=BaseModel)


class SagaBuilder(ReadyMadeBuilder):
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
                neither by going on nor by going back (see `StepKind`); or a model of a step has a field that is never
                stored.
        """
        if not self._steps:
            raise SagaDefinitionError("Saga must contain at least one step: call add_step before build.")
        if self._frontier.is_open:
            raise SagaDefinitionError("build() was called inside a `with builder.parallel()` block; call it after.")
        self._frontier.check_opened()
        steps = tuple(self._steps.values())
        steps += self._finish.question(steps)
        graph = self._graph(steps)
        check_models(steps)
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
