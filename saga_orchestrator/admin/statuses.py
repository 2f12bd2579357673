"""Statuses as operators name them: one or several, as values or as texts."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SagaStateError
from ..kernel.state import SagaStatus


def statuses_of(named: SagaStatus | Iterable[SagaStatus]) -> frozenset[SagaStatus]:
    """Return the statuses that are named.

    Raises:
        SagaStateError: One of them is none.
    """
    wanted = [named] if isinstance(named, str) else named
    try:
        return frozenset(SagaStatus(each) for each in wanted)
    except TypeError as error:
        raise SagaStateError(f"A status is {named!r:.80}; give it a SagaStatus, or several.") from error
    except ValueError as error:
        raise SagaStateError(f"{error}; the statuses are {', '.join(SagaStatus)}.") from error
