"""What the author's functions return: it is awaited when it can be, whatever the function looks like from outside.

A plain decorator around a coroutine function, a partial, a callable object and a lambda all look like plain functions,
and return a coroutine. Only the value that a call returns says whether there is more to do.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

from ..errors import OutcomeUnknown, PermanentError

_NOT_RUN = (
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
    contextlib.ContextDecorator,
    contextlib.AsyncContextDecorator,
    map,
    filter,
    zip,
)
"""Values that hold code which has not run: a call that returns one of these has left its work undone."""


class NotRunError(PermanentError, OutcomeUnknown):
    """A function returned something that was still to be run. How much the function itself has done is unknown."""


def can_be_awaited(value: Any) -> bool:
    """Return whether a value is a coroutine, a future, or anything else that `await` takes."""
    return inspect.isawaitable(value)


async def awaited(value: Any) -> Any:
    """Return what a value comes to: it is awaited, and so is the result, until that cannot be."""
    while can_be_awaited(value):
        value = await value
    return value


def then(value: Any, go_on: Callable[[Any], Any]) -> Any:
    """Return what `go_on` makes of a value: at once, or, of one that can be awaited, as a coroutine."""
    return _then(value, go_on) if can_be_awaited(value) else go_on(value)


async def _then(value: Any, go_on: Callable[[Any], Any]) -> Any:
    return await awaited(go_on(await awaited(value)))


def check_run(value: Any) -> Any:
    """Return what a function returned that is called for its effect alone.

    Raises:
        NotRunError: The value is code that has not run, such as a generator, or the inner function of a decorator.
    """
    if isinstance(value, _NOT_RUN):
        raise not_run(value)
    return value


def not_run(value: Any) -> NotRunError:
    """Return the error of a call that returned code which has not run."""
    return NotRunError(
        f"it returned {type(value).__name__!r}, and the engine does not run that: so its work is not done. "
        "Make it a function, or a coroutine function, that does the work when it is called"
    )
