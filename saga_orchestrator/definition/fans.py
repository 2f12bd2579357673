"""A step that is there once for each item of a list, and how a graph unfolds when the items are known.

A fan has a first step, which records the items, and an end, which records what each of them came to. Between the two
stands in the graph, for a saga whose list has three items, the same step three times. So what each item has of its own,
its attempts, its key and its undoing, is what every step has; nothing but the number of items is remembered for it.

With a bound on how many run side by side, each item comes after another: the first that will be over is not known, and
needs not be, for a graph that is the same in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Node

MOST_ITEMS = 1_000
"""Each move of a saga says where all of its steps stand; with more of them, have a child saga for some items each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """What stands between a fan's first step and its end.

    Attributes:
        item: The step that is there for each item; it comes after the fan's first step.
        end: The step that comes after all of them.
        max_parallel: How many run side by side; None for any number.
        tolerate: How many may fail without failing the saga.
    """

    item: Node
    end: str
    max_parallel: int | None = None
    tolerate: int = 0


def item_id(first: str, index: int) -> str:
    """Return the id of a fan's step for one item."""
    return f"{first}.{index}"


def item_of(step_id: str) -> tuple[str, int] | None:
    """Return the first step of the fan that a step would belong to, and the place of its item; None if to none.

    >>> item_of("mail.12"), item_of("mail"), item_of("mail.012")
    (('mail', 12), None, None)
    """
    first, dot, index = step_id.rpartition(".")
    if not dot or not index.isascii() or not index.isdigit() or str(int(index)) != index:
        return None
    return first, int(index)


def unfolded(nodes: Mapping[str, Node], fans: Mapping[str, Fan], counts: Mapping[str, int]) -> dict[str, Node]:
    """Return the nodes with those for each item before the end of its fan."""
    ends = {fans[first].end: first for first in counts}
    found: dict[str, Node] = {}
    for step_id, node in nodes.items():
        if (first := ends.get(step_id)) is not None:
            items = _items(first, fans[first], counts[first])
            found |= items
            node = replace(node, after=tuple(items) or node.after)  # noqa: PLW2901 - its last form
        found[step_id] = node
    return found


def _items(first: str, fan: Fan, count: int) -> dict[str, Node]:
    lanes = fan.max_parallel or count
    found: dict[str, Node] = {}
    for index in range(count):
        before = first if index < lanes else item_id(first, index - lanes)
        step_id = item_id(first, index)
        found[step_id] = replace(fan.item, step_id=step_id, after=(before,), fan=first)
    return found
