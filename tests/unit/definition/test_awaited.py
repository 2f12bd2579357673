"""What a function of the author's returns is awaited until it cannot be; code that has not run is no work done."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from saga_orchestrator.definition.awaited import NotRunError, awaited, check_run, then


async def answer(value: Any) -> Any:
    return value


async def test_a_value_is_awaited_until_it_cannot_be() -> None:
    assert await awaited(3) == 3
    assert await awaited(answer(answer(answer(3)))) == 3


async def test_what_follows_comes_at_once_or_is_awaited_as_well() -> None:
    assert then(3, str) == "3"
    assert await then(answer(3), str) == "3"
    assert await then(answer(3), answer) == 3


def test_what_has_run_is_given_back() -> None:
    for value in (None, 3, "text", [1], {"a": 1}):
        assert check_run(value) is value


def test_code_that_has_not_run_is_an_error() -> None:
    def later() -> Iterator[int]:
        yield 1

    async def much_later() -> AsyncIterator[int]:
        yield 1

    for value in (later(), much_later(), later, functools.partial(later), map(str, [1])):
        with pytest.raises(NotRunError, match="the engine does not run that"):
            check_run(value)
