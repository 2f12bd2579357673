"""Fans: a step for each item of a list that is known only when the saga comes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Unpack

from pydantic import BaseModel, RootModel

from ..errors import PermanentError, SagaDefinitionError
from . import checks
from .awaited import then
from .fans import MOST_ITEMS, Fan, item_id
from .graph import Node
from .input_map import check_input_map
from .options import Refs, StepOptions, make_node
from .recording import recorded
from .step import BaseStep, StepDefinition, StepRef, StepSource, shape_of
from .step_builder import StepBuilder, given_by, step_of


class EachBuilder(StepBuilder):
    """Collects steps that there is one of for each item."""

    def add_each(
        self,
        *,
        items: Callable[..., Iterable[Any]],
        step: BaseStep[Any, Any] | StepSource[Any],
        max_parallel: int | None = None,
        tolerate: int = 0,
        depends_on: Refs = None,
        **options: Unpack[StepOptions],
    ) -> StepRef[Any]:
        """Add a step for each item of a list, and return a reference to the list of what they return.

        The items are recorded before the first of them begins, and stay. Each has its own attempts, idempotency key and
        compensation, and is called `step_id.0`, `step_id.1` and so on. What comes next comes after all of them, and
        finds in `.root` the outputs in the order of the items; None for one that was missed, or skipped without one.

        Args:
            items: Makes the inputs of the step, or dicts that fit it, from the outputs of `depends_on`, or from an
                `InputContext`. A list of none is one, too; of more than 1,000 none begins.
            step: As for a step.
            max_parallel: How many run side by side; all of them by default.
            tolerate: How many may fail for good without failing the saga. If one of them may have acted all the same,
                it is undone with the saga, as any other is.
            depends_on: As for a step.
            options: As for a step; `after` and `step_id` are those of all of them together, the rest that of each.

        Raises:
            SagaDefinitionError: As for a step, or one of the bounds makes no sense.
            TypeValidationError: As for a step.
        """
        name = self._free_id(options.get("step_id"))
        checks.check_fan(name, max_parallel, tolerate)
        checks.check_step_id(item_id(name, MOST_ITEMS), ())
        made = step_of(name, step)
        if shape_of(made).confirms:
            raise SagaDefinitionError(
                f"Step '{name}': {type(made).__name__} has confirm, and no item of a list is confirmed by itself. "
                "Confirm them together, in a step after them."
            )
        sources = self._refs(name, "depends_on", depends_on)
        check_input_map(name, items, given_by(sources), object)
        first = Node(step_id=name, after=self._before(name, options.get("after"), sources))
        item = make_node(f"{name}.*", (name,), made, options)
        fan = Fan(item=item, end=f"{name}.all", max_parallel=max_parallel, tolerate=tolerate)
        (end,) = self._splice(_steps_of(first, fan, made, sources, items))
        self._frontier.add(end)
        return self._ref(end)


def _steps_of(
    first: Node, fan: Fan, step: BaseStep[Any, Any], sources: tuple[StepRef[Any], ...], items: Callable[..., Any]
) -> list[StepDefinition]:
    """Return the first step of a fan, with the one for each item, and its end."""
    each = StepDefinition(step_id=fan.item.step_id, step=step, input_map=_itself, depends_on=(), node=fan.item)
    given: type[RootModel[Any]] = RootModel[list[each.input_model]]  # type: ignore[name-defined]
    results: type[RootModel[Any]] = RootModel[list[each.output_model | None]]  # type: ignore[name-defined]

    def listed(*of: Any) -> Any:
        return then(items(*of), lambda said: given.model_validate(_listed(said)))

    begins = recorded("Each", given, first, sources, listed)
    ends = recorded("All", results, Node(step_id=fan.end, after=(first.step_id,)), (), _itself)
    return [
        replace(begins, stands_for=fan.end, fan=fan, each=each),
        replace(ends, gathers=first.step_id),
    ]


def _itself(item: BaseModel) -> BaseModel:
    return item


def _listed(said: Any) -> list[Any]:
    """Return what `items` has answered as a list.

    Raises:
        PermanentError: It is none, or too long.
    """
    if not isinstance(said, Iterable) or isinstance(said, str | bytes | Mapping | BaseModel):
        raise PermanentError(f"items answered {type(said).__name__}, which is no list")
    listed = list(said)
    if len(listed) > MOST_ITEMS:
        raise PermanentError(
            f"items answered {len(listed):,} items, and a saga takes {MOST_ITEMS:,}: give each several of them"
        )
    return listed
