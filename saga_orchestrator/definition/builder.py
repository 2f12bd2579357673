"""Writes a saga down, step by step, and refuses what could not be carried out or taken back.

Steps are sequential in the order in which they are added. `after=` and `parallel()` make the graph explicit;
`depends_on=` adds edges and hands typed outputs to `input_map`. Since a step can only refer to steps added before it,
the graph that comes out has no cycle, and the order of adding respects every edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, Unpack, overload

from pydantic import BaseModel

from ..errors import SagaDefinitionError
from . import checks
from .constant import Nothing, constant
from .frontier import Frontier, ParallelBlock
from .function import FunctionStep
from .graph import Graph
from .input_map import check_input_map
from .options import Refs, StepOptions, make_node
from .parts import first_step, spliced
from .saga import SagaDefinition
from .step import BaseStep, InputContext, InputT, OutputT, StepDefinition, StepRef

DependencyT = TypeVar("DependencyT", bound=BaseModel)


class SagaBuilder:
    """Builds a frozen `SagaDefinition`.

    Args:
        compensate_on_failure: False leaves the effects of a failed saga standing, for a person to decide.
        version: The number that tells sagas of this definition from those of an older one of the same name.
        max_recoveries: How many crashes in a row, without any progress, a saga may cause before it is quarantined.
    """

    def __init__(self, *, compensate_on_failure: bool = True, version: int = 1, max_recoveries: int = 5) -> None:
        checks.check_settings(compensate_on_failure, version, max_recoveries)
        self._compensate_on_failure = compensate_on_failure
        self._version = version
        self._max_recoveries = max_recoveries
        self._steps: dict[str, StepDefinition] = {}
        self._frontier = Frontier()
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
        step: FunctionStep[OutputT],
        input_map: Callable[..., Any],
        depends_on: Refs = None,
        **options: Unpack[StepOptions],
    ) -> StepRef[OutputT]: ...

    def add_step(
        self,
        *,
        step: BaseStep[Any, Any] | FunctionStep[Any],
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

        Raises:
            SagaDefinitionError: Something of this cannot be carried out; the message names the step.
            TypeValidationError: `input_map` is annotated with other types than it is given or must return.
        """
        step_id = self._free_id(options.get("step_id"))
        if isinstance(step, FunctionStep):
            step = step.to_step()
        if not isinstance(step, BaseStep):
            raise SagaDefinitionError(
                f"Step '{step_id}': step is {step!r}; give it an instance of a BaseStep subclass, or a @step function."
            )
        sources = self._refs(step_id, "depends_on", depends_on)
        node = make_node(step_id, self._before(step_id, options.get("after"), sources), step, options)
        placed = StepDefinition(step_id=step_id, step=step, input_map=input_map, depends_on=sources, node=node)
        check_input_map(step_id, input_map, _given(sources), placed.input_model)
        return self._place(placed)

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
        check_input_map(name, input_map, _given(sources), object)
        first = first_step(name, definition, self._before(name, after, sources), sources, input_map)
        inner = spliced(name, definition, self._owner)
        for step in inner:
            checks.check_step_id(step.step_id, self._steps)
        self._steps |= {step.step_id: step for step in (first, *inner)}
        self._frontier.add(str(first.stands_for))
        return self._ref(str(first.stands_for))

    @contextmanager
    def parallel(self) -> Iterator[ParallelBlock]:
        """Let the steps added inside run side by side; the next step after the block waits for all of them.

        Use `branch()` of what it gives for a branch of several steps.
        """
        with self._frontier.block(parallel=True) as block:
            yield ParallelBlock(self._frontier, block)

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
        graph = Graph.of(
            *(step.node for step in self._steps.values()),
            compensate_on_failure=self._compensate_on_failure,
            max_recoveries=self._max_recoveries,
        )
        checks.check_way_back(graph)
        return SagaDefinition(tuple(self._steps.values()), graph, self._version)

    def _place(self, step: StepDefinition) -> StepRef[Any]:
        self._steps[step.step_id] = step
        self._frontier.add(step.step_id)
        return self._ref(step.step_id)

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
        return (*default, *(ref.step_id for ref in (*explicit, *sources)))

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


def _given(sources: tuple[StepRef[Any], ...]) -> tuple[type, ...]:
    """Return what an `input_map` is called with."""
    return tuple(ref.output_model for ref in sources) or (InputContext,)
