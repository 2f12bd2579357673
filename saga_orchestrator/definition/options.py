"""How a step is used in one saga: the keywords of `add_step`, checked and reduced to a `Node`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict

from ..errors import SagaDefinitionError
from . import checks
from .graph import Node, StepKind
from .retry import NoRetry, RetryPolicy
from .step import BaseStep, StepRef, shape_of

Refs = StepRef[Any] | Sequence[StepRef[Any]] | None


class StepOptions(TypedDict, total=False):
    """The optional keywords of `SagaBuilder.add_step`, which documents them."""

    after: Refs
    step_id: str | None
    kind: StepKind | None
    timeout: timedelta | None
    retry_policy: RetryPolicy | None
    compensation: None
    compensation_retry: RetryPolicy | None
    compensation_timeout: timedelta | None
    on_undo_failure: Literal["continue", "stop"]
    confirm_retry: RetryPolicy | None
    confirm_timeout: timedelta | None


def make_node(step_id: str, before: tuple[str, ...], step: BaseStep[Any, Any], options: StepOptions) -> Node:
    """Return what the kernel needs to know about a step that comes after the steps `before`.

    Raises:
        SagaDefinitionError: An option is unknown, makes no sense, or contradicts the step's class.
    """
    _check_options(step_id, options)
    shape = shape_of(step)
    kind = checks.read_kind(step_id, options.get("kind") or step.kind)
    declared_none = "compensation" in options
    checks.check_compensation(step_id, kind, shape, declared_none=declared_none)
    if not shape.confirms and (options.get("confirm_retry") or options.get("confirm_timeout")):
        raise SagaDefinitionError(f"Step '{step_id}' has no confirm; drop confirm_retry and confirm_timeout.")
    return Node(
        step_id=step_id,
        after=before,
        kind=kind,
        undoable=shape.undoable,
        undo_without_output=shape.undo_without_output,
        nothing_to_undo=declared_none or kind is StepKind.READ_ONLY,
        probes=shape.probes,
        transactional=step.transactional,
        retry=options.get("retry_policy") or NoRetry(),
        timeout=options.get("timeout"),
        compensation_retry=options.get("compensation_retry") or NoRetry(),
        compensation_timeout=options.get("compensation_timeout"),
        on_undo_failure=options.get("on_undo_failure", "continue"),
        name=type(step).__name__,
    )


def _check_options(step_id: str, options: StepOptions) -> None:
    unknown = options.keys() - StepOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"add_step() got an unexpected keyword argument {min(unknown)!r}")
    for name in ("timeout", "compensation_timeout", "confirm_timeout"):
        checks.check_timeout(step_id, name, options.get(name))
    for name in ("retry_policy", "compensation_retry", "confirm_retry"):
        checks.check_retry(step_id, name, options.get(name))
    if options.get("compensation") is not None:
        raise SagaDefinitionError(
            f"Step '{step_id}': compensation takes only None (there is nothing to undo); "
            "write how to undo it as the step's compensate method."
        )
    if options.get("on_undo_failure", "continue") not in ("continue", "stop"):
        raise SagaDefinitionError(
            f"Step '{step_id}': on_undo_failure is {options['on_undo_failure']!r}; it must be 'continue' or 'stop'."
        )
