"""A choice between parts of a saga: its answer is recorded, so that newer code never decides an older saga anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import RootModel

from ..errors import PermanentError, SagaDefinitionError
from .awaited import then
from .graph import Node
from .recording import Records, recording
from .saga import SagaDefinition
from .step import StepDefinition, StepRef

OTHERWISE = "otherwise"
"""The answer that is recorded where `choose` names none of the branches, and that is declared to be right."""


class Refuse:
    """The default of `otherwise`: an answer that names none of the branches is an error."""


REFUSE: Final = Refuse()
Otherwise = SagaDefinition | Refuse | None


class Answer(RootModel[str]):
    """Which branch a saga takes."""


class Choose(Records[Answer]):
    """The step that records the answer."""


def choice(
    node: Node,
    depends_on: tuple[StepRef[Any], ...],
    choose: Callable[..., Any],
    labels: Collection[str],
    otherwise: Otherwise,
) -> StepDefinition:
    """Return the step that asks `choose` and records what it answers."""

    def answer(*given: Any) -> Any:
        return then(choose(*given), judged)

    def judged(said: Any) -> Answer:
        if isinstance(said, str) and said in labels:
            return Answer(str(said))
        if isinstance(otherwise, Refuse):
            known = ", ".join(f"'{label}'" for label in labels)
            raise PermanentError(f"choose answered {said!r}, and the branches are {known}")
        return Answer(OTHERWISE)

    return replace(recording(Choose(), node, depends_on, answer), is_choice=True)


def branches_of(
    step_id: str, branches: Mapping[str, SagaDefinition], otherwise: Otherwise
) -> dict[str, SagaDefinition]:
    """Return all the branches by their answers.

    Raises:
        SagaDefinitionError: There is none, one has no name, or one has the name that `otherwise` is recorded under.
    """
    if not branches or "" in branches:
        raise SagaDefinitionError(
            f"Choice '{step_id}': branches is {branches!r}; give it a definition for each answer."
        )
    if OTHERWISE in branches:
        raise SagaDefinitionError(
            f"Choice '{step_id}' has a branch named '{OTHERWISE}'; give it as otherwise=, or under another name."
        )
    return {**branches, **({OTHERWISE: otherwise} if isinstance(otherwise, SagaDefinition) else {})}
