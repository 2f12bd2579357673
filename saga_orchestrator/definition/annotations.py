"""Reads type annotations the way a type checker would, as far as that can be done while a class is being created.

Annotations may be strings that name things not yet importable, type variables that only a subclass binds, or absent.
Nothing here knows what a step is; `shape` and `input_map` decide what an answer means.
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Bindings = Mapping[Any, Any]
"""What type variables stand for."""


def evaluate(annotation: Any, function: Callable[..., Any], names: Mapping[str, Any]) -> Any:
    """Return what an annotation of `function` means; `names` are asked only when its own globals do not know a name.

    Each annotation is evaluated alone: a `ctx: StepContext` imported under TYPE_CHECKING must not hide its neighbours.

    Raises:
        Exception: Whatever evaluating the text raised; mostly `NameError`.
    """
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    known = _globals_of(function)
    try:
        return get_type_hints(holder, known)["it"]
    except NameError:
        return get_type_hints(holder, known, dict(names))["it"]


def accepts(annotation: Any, model: Any) -> bool:
    """Return whether a value of class `model` may be passed where `annotation` stands; in doubt, yes."""
    if is_union(annotation):
        return any(accepts(member, model) for member in get_args(annotation))
    comparable = inspect.isclass(annotation) and inspect.isclass(model) and annotation is not Any
    return not comparable or issubclass(model, annotation)


def admits_none(annotation: Any) -> bool:
    """Return whether `annotation` says in so many words that None may be passed (`Any` does not say it)."""
    return annotation is types.NoneType or (is_union(annotation) and types.NoneType in get_args(annotation))


def is_union(annotation: Any) -> bool:
    """Return whether `annotation` is `A | B`, `Union[A, B]` or `Optional[A]`."""
    return get_origin(annotation) in (Union, types.UnionType)


def mentions(annotation: Any, member: type) -> bool:
    """Return whether `annotation` is a class, or a union that has it as a member."""
    return annotation is member or (is_union(annotation) and member in get_args(annotation))


def without(annotation: Any, member: type) -> Any:
    """Return a union without one of its members, and any other annotation as it is."""
    if not is_union(annotation) or member not in get_args(annotation):
        return annotation
    left = [each for each in get_args(annotation) if each is not member]
    return functools.reduce(operator.or_, left)


def positional_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that can be given by position, in order; `self` among them where it is one."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in inspect.signature(function).parameters.values() if parameter.kind in by_position]


def bindings(cls: type) -> dict[type, dict[Any, Any]]:
    """Return, for every base of `cls`, what that base's type variables stand for when seen from `cls`."""
    found: dict[type, dict[Any, Any]] = {}
    pending: list[tuple[type, dict[Any, Any]]] = [(cls, {})]
    while pending:
        current, bound = pending.pop()
        found.setdefault(current, {}).update(bound)
        for base in current.__dict__.get("__orig_bases__", current.__bases__):
            origin: Any = get_origin(base) or base
            arguments = [substitute(argument, bound) for argument in get_args(base)]
            pending.append((origin, dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))))
    return found


def substitute(annotation: Any, bound: Bindings) -> Any:
    """Return `annotation` with its type variables replaced, as far as they are bound."""
    if isinstance(annotation, TypeVar):
        return bound.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if not any(variable in bound for variable in variables):
        return annotation
    return annotation[tuple(bound.get(variable, variable) for variable in variables)]


def free_variables(annotation: Any) -> tuple[Any, ...]:
    """Return the type variables that `annotation` still depends on."""
    return (annotation,) if isinstance(annotation, TypeVar) else tuple(getattr(annotation, "__parameters__", ()))


def name_of(annotation: Any) -> str:
    """Return what to call an annotation in a message."""
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    plain = inspect.unwrap(function)
    if not hasattr(plain, "__globals__") and not inspect.isclass(plain):
        plain = inspect.unwrap(type(plain).__call__)
    return getattr(plain, "__globals__", {})
