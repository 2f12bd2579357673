"""What the author's functions return: it is awaited when it can be, whatever the function looks like from outside.

A plain decorator around a coroutine function, a partial, a callable object and a lambda all look like plain functions,
and return a coroutine. Only the value that a call returns says whether there is more to do.
"""

from __future__ import annotations

import inspect
import types
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from concurrent.futures import Future
from typing import Any

from ..errors import OutcomeUnknown, PermanentError
from .plain_errors import name_type

_WORKERS = (("start", "join"), ("ready", "get", "wait"))
"""Methods of threads, of processes, and of the answers of pools: they work beside their caller, or have not begun."""
_PROCESS = ("wait", "terminate", "kill")
"""Methods of a process that has been begun; its `returncode` is None until it has ended."""
_ITERATORS = ("builtins", "itertools")
"""Modules of iterators that run code when they are asked: `map`, `filter`, `chain`, and the like."""
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
NOT_AWAITABLE: set[type] = set(_PLAIN)
"""Classes that need not be looked at again: plain values, and the models that steps return."""
_COLLECTIONS = (list, tuple, set, frozenset, deque, KeysView, ValuesView, ItemsView)


class NotRunError(PermanentError, OutcomeUnknown):
    """A function returned something that was still to be run. How much the function itself has done is unknown."""


def can_be_awaited(value: Any) -> bool:
    """Return whether a value is a coroutine, a future, or anything else that `await` takes.

    Raises:
        OutcomeUnknown: It raises when it is looked at.
    """
    if type(value) in NOT_AWAITABLE:
        return False
    try:
        found = inspect.isawaitable(value)
        is_model = hasattr(type(value), "__pydantic_validator__")
    except Exception as error:
        raise OutcomeUnknown(f"it returned a {name_type(value)} that raises when it is looked at") from error
    if is_model and not found:
        NOT_AWAITABLE.add(type(value))
    return found


async def awaited(value: Any, adopt: Callable[[Any], Any] | None = None) -> Any:
    """Return what a value comes to: it is awaited, and so is the result, until that cannot be.

    Args:
        adopt: Returns what can be awaited here for a future of anywhere, or refuses it.

    Raises:
        NotRunError: It comes to an async generator, which the engine does not run.
    """
    while True:
        if type(value) is types.CoroutineType:
            value = await value
        elif can_be_awaited(value):
            value = await (value if adopt is None else adopt(value))
        elif adopt is not None and isinstance(value, Future):
            value = await adopt(value)
        elif isinstance(value, types.AsyncGeneratorType):
            raise not_run(value)
        else:
            return value


def then(value: Any, go_on: Callable[[Any], Any]) -> Any:
    """Return what `go_on` makes of a value: at once, or, of one that can be awaited, as a coroutine."""
    return _then(value, go_on) if can_be_awaited(value) else go_on(value)


async def _then(value: Any, go_on: Callable[[Any], Any]) -> Any:
    return await awaited(go_on(await awaited(value)))


def check_run(value: Any) -> Any:
    """Return what a function returned that is called for its effect alone.

    It looks into collections, models and dataclasses. An object of any other class is taken as it is.

    Raises:
        NotRunError: The value is, or holds, code that has not run, work that runs elsewhere, or an exception.
    """
    if type(value) not in _PLAIN and (found := _find_unrun(value)) is not None:
        raise not_run(value, found)
    return value


def not_run(value: Any, found: Any = None) -> NotRunError:
    """Return the error of a call that returned code which has not run. `found`: the part of the value that is code."""
    inner = value if found is None else found
    shown = repr(type(value).__name__) + ("" if inner is value else f" with {type(inner).__name__!r} in it")
    if isinstance(inner, BaseException):
        error = NotRunError(f"it returned {shown}, and so says that its work has failed. Raise that error")
        error.__cause__ = inner
        return error
    return NotRunError(
        f"it returned {shown}, and the engine does not run that: so its work is not done. "
        "Make it a function, or a coroutine function, that does the work when it is called"
    )


def _find_unrun(value: Any) -> Any:
    """Return the first part of a value that is work still to be done, or that has failed; else None."""
    pending, seen = [value], dict[int, Any]()
    while pending:
        part = pending.pop()
        if type(part) in _PLAIN or id(part) in seen:
            continue
        if _is_unrun(part):
            return part
        seen[id(part)] = part
        pending += _parts_of(part)
    return None


def _is_unrun(value: Any) -> bool:
    if is_future(value):
        return not value.done() or value.cancelled() or value.exception() is not None
    if isinstance(value, BaseException) or can_be_awaited(value):
        return True
    if any(_has(value, names) for names in _WORKERS):
        return True
    if _has(value, _PROCESS):
        return getattr(value, "returncode", None) is None
    if callable(value):
        return all(base.__module__ != "unittest.mock" for base in type(value).__mro__)
    is_iterator = hasattr(type(value), "__next__") or hasattr(type(value), "__anext__")
    return is_iterator and type(value).__module__ in _ITERATORS


def _has(value: Any, methods: tuple[str, ...]) -> bool:
    return all(hasattr(type(value), name) for name in methods)


def is_future(value: Any) -> bool:
    """Return whether a value is a future, of an event loop or of a pool of threads."""
    return isinstance(value, Future) or getattr(type(value), "_asyncio_future_blocking", None) is not None


def _parts_of(value: Any) -> Iterable[Any]:
    parts: Iterable[Any] = ()
    if is_future(value):
        parts = (value.result(),)
    elif isinstance(value, Mapping):
        parts = (*value, *value.values())
    elif isinstance(value, _COLLECTIONS):
        parts = value
    elif names := getattr(type(value), "__dataclass_fields__", ()):
        parts = [getattr(value, name, None) for name in names]
    elif hasattr(type(value), "__pydantic_validator__"):
        parts = (*vars(value).values(), *(value.__pydantic_extra__ or {}).values())
    return parts
