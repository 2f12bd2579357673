"""The user's constraints on the engine's columns: those that would refuse what the engine writes are refused here.

What is written with a start may be constrained: the start is refused, and nothing has acted yet. What the engine
writes later may not be, for then a step has acted, and its outcome could not be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy import CheckConstraint, Table, UniqueConstraint

from ..errors import SagaDefinitionError

_OF_THE_START = frozenset({"aggregation_id", "context", "idempotency_key", "priority", "saga_name", "trace_id"})
"""Columns that the engine writes with a start, and never again."""
_REFERS = ("aggregation_id", "trace_id")
"""Columns whose values the caller gives, so that they may refer to rows of the caller's."""
_HARMLESS = (None, "NO ACTION", "RESTRICT")
_LITERAL = re.compile(r"'(?:[^']|'')*'")


def check_constraints(cls: type, head: Table, needed: Table) -> None:
    """Refuse constraints that the engine could break in the middle of a saga.

    Raises:
        SagaDefinitionError: With the constraint, and what to do.
    """
    engines = frozenset(needed.c.keys())
    for problem in (*_keys(head, engines), *_references(head, engines), *_checks(head, engines)):
        raise SagaDefinitionError(
            f"{cls.__name__} {problem}, which the engine writes. "
            "Give the table a column of your own, fill it with start(values=), and constrain that one."
        )


def _keys(head: Table, engines: frozenset[str]) -> Iterator[str]:
    """Yield what must be unique among columns of the engine alone; with one of the user's it may be."""
    own = {f"uq_{head.name}_active_aggregation", f"uq_{head.name}_idempotency"}
    keys = [(each.name, each.columns.keys()) for each in head.constraints if isinstance(each, UniqueConstraint)]
    keys += [(index.name, index.columns.keys()) for index in head.indexes if index.unique]
    for name, names in keys:
        if names and engines.issuperset(names) and "id" not in names and str(name) not in own:
            yield f"has a unique key on {', '.join(names)}"


def _references(head: Table, engines: frozenset[str]) -> Iterator[str]:
    """Yield foreign keys that take a saga away, or that a row of the engine's cannot meet."""
    keys = [(column.name, key) for column in head.c if column.name in engines for key in column.foreign_keys]
    for name, key in keys:
        if name not in _REFERS:
            yield f"has a foreign key on {name}"
        for action in (key.ondelete, key.onupdate):
            if (action.upper() if action else None) not in _HARMLESS:
                yield f"has a foreign key with {action} on {name}"


def _checks(head: Table, engines: frozenset[str]) -> Iterator[str]:
    """Yield checks that name a column which the engine writes while a saga goes on."""
    own = {f"ck_{head.name}_status", f"ck_{head.name}_never_stranded"}
    for check in head.constraints:
        if isinstance(check, CheckConstraint) and str(check.name) not in own:
            words = set(re.findall(r"\w+", _LITERAL.sub("", str(check.sqltext)).lower()))
            for name in sorted(words & (engines - _OF_THE_START)):
                yield f"has a check on {name}"
