"""Checks, when a saga is built, that an `input_map` fits the outputs it is given and the input it must make.

An `input_map` without annotations passes: then the same is checked each time it is called. What cannot be read (a
builtin, a name that cannot be resolved yet) passes as well: a check that guesses would refuse good code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from ..errors import SagaDefinitionError, TypeValidationError
from .annotations import accepts, evaluate, is_union, name_of


def check_input_map(step_id: str, input_map: Any, given: tuple[type, ...], input_model: type) -> None:
    """Check an `input_map` that will be called with one argument of each class in `given`.

    Raises:
        SagaDefinitionError: It is not callable, is a coroutine function, or takes other arguments.
        TypeValidationError: Its annotations contradict what it is given or what it must return.
    """
    if not callable(input_map) or inspect.iscoroutinefunction(input_map) or inspect.isasyncgenfunction(input_map):
        raise SagaDefinitionError(
            f"The input_map of step '{step_id}' must be a plain function or lambda, not {input_map!r}. "
            "It only shapes the input; what must be awaited belongs in a step."
        )
    try:
        signature = inspect.signature(input_map)
    except (TypeError, ValueError):
        return
    for parameter, argument in _arguments(step_id, signature, given):
        _check_parameter(step_id, parameter, argument, _meaning(parameter.annotation, input_map, (*given, input_model)))
    returned = input_map if inspect.isclass(input_map) else signature.return_annotation
    _check_return(step_id, _meaning(returned, input_map, (*given, input_model)), input_model)


def _arguments(
    step_id: str, signature: inspect.Signature, given: tuple[type, ...]
) -> list[tuple[inspect.Parameter, type]]:
    """Return which parameter each argument will be bound to."""
    try:
        bound = signature.bind(*given).arguments
    except TypeError as error:
        raise SagaDefinitionError(
            f"The input_map of step '{step_id}' is called with ({', '.join(model.__name__ for model in given)}), "
            f"which it does not take: {error}. It takes one positional argument for each ref in depends_on, in that "
            "order, and an InputContext without depends_on."
        ) from None
    pairs: list[tuple[inspect.Parameter, type]] = []
    for name, value in bound.items():
        parameter = signature.parameters[name]
        several = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        pairs += [(parameter, argument) for argument in (value if several else (value,))]
    return pairs


def _meaning(annotation: Any, function: Callable[..., Any], models: tuple[type, ...]) -> Any:
    try:
        return evaluate(annotation, function, {model.__name__: model for model in models})
    except Exception:  # noqa: BLE001 - the text of an annotation may raise anything
        return Any


def _check_parameter(step_id: str, parameter: inspect.Parameter, argument: type, annotation: Any) -> None:
    if annotation is not inspect.Parameter.empty and not accepts(annotation, argument):
        raise TypeValidationError(
            f"The input_map of step '{step_id}' takes `{parameter.name}: {name_of(annotation)}`, but is given "
            f"{argument.__name__}. Annotate it with {argument.__name__}, or depend on another step."
        )


def _check_return(step_id: str, annotation: Any, input_model: type) -> None:
    if not _makes(annotation, input_model):
        raise TypeValidationError(
            f"The input_map of step '{step_id}' returns {name_of(annotation)}, but the step takes "
            f"{input_model.__name__}. Return {input_model.__name__}, or a dict[str, Any] that fits it."
        )


def _makes(annotation: Any, input_model: type) -> bool:
    """Return whether a value of this annotation is the input model, or could be validated into it."""
    if annotation in (inspect.Signature.empty, Any) or isinstance(annotation, TypeVar):
        return True
    if is_union(annotation):
        return all(_makes(member, input_model) for member in get_args(annotation))
    origin = get_origin(annotation) or annotation
    if not inspect.isclass(origin):
        return False
    is_mapping = issubclass(origin, Mapping) and get_args(annotation)[:1] in ((), (str,), (Any,))
    return is_mapping or issubclass(origin, input_model)
