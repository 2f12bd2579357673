"""Writes steps down, and in what order they come.

Steps are sequential in the order in which they are added. `after=` and `parallel()` make the graph explicit;
`depends_on=` adds edges and hands typed outputs to `input_map`. Since a step can only refer to steps added before it,
the graph that comes out has no cycle, and the order of adding respects every edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import Any, TypeVar, Unpack, overload

from pydantic import BaseModel

from ..errors import SagaDefinitionError
from . import checks
from .context import InputContext
from .frontier import Frontier, ParallelBlock
from .input_map import check_input_map
from .options import Refs, StepOptions, make_node
from .step import BaseStep, InputT, OutputT, StepDefinition, StepRef, StepSource

DependencyT = TypeVar("DependencyT", bound=BaseModel)


class StepBuilder:
    """Collects steps, one after the other or side by side."""

    def __init__(self) -> None:
        self._steps: dict[str, StepDefinition] = {}
        self._frontier = Frontier()
        self._ends: dict[str, tuple[str, ...]] = {}
        """For each choice, the steps that its branches end with: to come after it is to come after these."""
        self._owner = object()

    @overload
    def add_step(
        self,
        *,
        step: BaseStep[InputT, OutputT],
        input_map: Callable[[InputContext], InputT | Mapping[str, Any]],
        depends_on: None = None,
        **options: Unpack[StepOptions],
    ) -> StepRef[OutputT]: ...

    @overload
    def add_step(
        self,
        *,
        step: BaseStep[InputT, OutputT],
        input_map: Callable[[DependencyT], InputT | Mapping[str, Any]],
        depends_on: StepRef[DependencyT],
        **options: Unpack[StepOptions],
    ) -> StepRef[OutputT]: ...

    @overload
    def add_step(
        self,
        *,
        step: BaseStep[InputT, OutputT],
        input_map: Callable[..., InputT | Mapping[str, Any]],
        depends_on: Sequence[StepRef[Any]],
        **options: Unpack[StepOptions],
    ) -> StepRef[OutputT]: ...

    @overload
    def add_step(
        self,
        *,
        step: StepSource[OutputT],
        input_map: Callable[..., Any],
        depends_on: Refs = None,
        **options: Unpack[StepOptions],
    ) -> StepRef[OutputT]: ...

    def add_step(
        self,
        *,
        step: BaseStep[Any, Any] | StepSource[Any],
        input_map: Callable[..., Any],
        depends_on: Refs = None,
        **options: Unpack[StepOptions],
    ) -> StepRef[Any]:
        """Add a step after the previous one, and return a reference to its output.

        Args:
            step: An object of a class of yours, or what `step` has made of a function.
            input_map: Makes the step's input, or a dict that fits it. Called on every attempt, with the outputs of
                `depends_on` in that order, or with an `InputContext` when there is no `depends_on`.
            depends_on: One ref or several: steps that come before, and whose outputs `input_map` is given.
            after: The refs to come after *instead of* the previous step; an empty list starts with the saga.
            step_id: The step's name in rows, logs and keys; keep it when the code changes. `step_<n>` by default.
            kind: A `StepKind`, overriding that of the step's class.
            timeout: A `timedelta`: how long one attempt may take. One that takes longer is in doubt.
            retry_policy: When to try again. One attempt by default.
            compensation: None declares that there is nothing to undo.
            compensation_retry: When to try the compensation again. One attempt by default.
            compensation_timeout: How long one attempt to undo may take.
            on_undo_failure: "continue" (the default) or "stop" undoing the rest when this step's compensation has
                failed for good.
            confirm_retry: When to try `confirm` again: for about two hours by default.
            confirm_timeout: How long one attempt to confirm may take.

        Raises:
            SagaDefinitionError: Something of this cannot be carried out; the message names the step.
            TypeValidationError: `input_map` is annotated with other types than it is given or must return.
        """
        step_id = self._free_id(options.get("step_id"))
        step = step_of(step_id, step)
        sources = self._refs(step_id, "depends_on", depends_on)
        node = make_node(step_id, self._before(step_id, options.get("after"), sources), step, options)
        placed = StepDefinition(
            step_id=step_id,
            step=step,
            input_map=input_map,
            depends_on=sources,
            node=node,
            confirm_retry=options.get("confirm_retry"),
            confirm_timeout=options.get("confirm_timeout"),
        )
        check_input_map(step_id, input_map, given_by(sources), placed.input_model)
        return self._place(placed)

    def parallel(self) -> AbstractContextManager[ParallelBlock]:
        """Let the steps added inside run side by side; the next step after the block waits for all of them.

        Use `branch()` of what it gives for a branch of several steps.
        """
        return self._frontier.opened_by(self._parallel())

    @contextmanager
    def _parallel(self) -> Iterator[ParallelBlock]:
        with self._frontier.block(parallel=True) as block:
            yield ParallelBlock(self._frontier, block)

    def _place(self, step: StepDefinition) -> StepRef[Any]:
        self._steps[step.step_id] = step
        self._frontier.add(step.step_id)
        return self._ref(step.step_id)

    def _splice(self, steps: list[StepDefinition]) -> tuple[str, ...]:
        """Add the steps of parts, or none of them; return the last step of each part."""
        for step in steps:
            checks.check_step_id(step.step_id, self._steps)
        self._steps |= {step.step_id: step for step in steps}
        return tuple(step.stands_for for step in steps if step.stands_for is not None and step.scope is None)

    def _ref(self, step_id: str) -> StepRef[Any]:
        return StepRef(step_id, self._steps[step_id].output_model, self._owner)

    def _free_id(self, wanted: str | None) -> str:
        step_id = f"step_{len(self._steps)}" if wanted is None else wanted
        checks.check_step_id(step_id, self._steps)
        return step_id

    def _before(self, step_id: str, after: Refs, sources: tuple[StepRef[Any], ...]) -> tuple[str, ...]:
        """Return the steps that this one comes after; `after` replaces the frontier, `depends_on` only adds to it."""
        explicit = self._refs(step_id, "after", after)
        default = self._frontier.after if after is None else ()
        ends = [self._ends.get(ref.step_id, (ref.step_id,)) for ref in (*explicit, *sources)]
        return tuple(dict.fromkeys((*default, *chain.from_iterable(ends))))

    def _refs(self, step_id: str, keyword: str, refs: Refs) -> tuple[StepRef[Any], ...]:
        """Return the refs as a tuple, after checking that this builder gave them out."""
        given: Any = () if refs is None else refs
        listed = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
        for ref in listed:
            if not isinstance(ref, StepRef):
                raise SagaDefinitionError(
                    f"Step '{step_id}': {keyword} holds {ref!r}; give it what add_step returned for the other step."
                )
            if ref.owner is not self._owner:
                raise SagaDefinitionError(
                    f"Step '{step_id}': {keyword} refers to step '{ref.step_id}' of another SagaBuilder; "
                    "give it what add_step of this builder returned."
                )
        return listed


def step_of(step_id: str, step: BaseStep[Any, Any] | StepSource[Any]) -> BaseStep[Any, Any]:
    """Return the step, or what a source makes.

    Raises:
        SagaDefinitionError: It is neither.
    """
    made = step.to_step() if isinstance(step, StepSource) else step
    if not isinstance(made, BaseStep):
        raise SagaDefinitionError(
            f"Step '{step_id}': step is {step!r}; give it an instance of a BaseStep subclass, or a @step function."
        )
    return made


def given_by(sources: tuple[StepRef[Any], ...]) -> tuple[type, ...]:
    """Return what an `input_map` is called with."""
    return tuple(ref.output_model for ref in sources) or (InputContext,)
