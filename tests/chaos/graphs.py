"""What the auditor knows of the sagas, written down a second time: which effects come before which.

Deliberately not read from the definitions: the ledger judges with its own copy. Steps that only read are left out, and
so is a step that has a child, whose effects are the child's. `parcel.*` is all the items of a fan.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

GRAPHS: dict[str, dict[str, tuple[str, ...]]] = {
    "order": {
        "reserve": (),
        "charge": ("reserve",),
        "pack": ("reserve",),
        "dispatch": ("charge", "pack"),
        "notify": ("dispatch",),
    },
    "trip": {"flight": (), "hotel": ("flight",), "car": ("hotel",)},
    "bundle": {"label": (), "print": ("label",), "wrap": (), "seal": ("print", "wrap")},
    "mailing": {"stamp": (), "parcel.*": ("stamp",), "letter.*": ("parcel.*",), "file": ("stamp", "letter.*")},
    "journey": {"ticket": (), "insure": ("ticket",)},
    "stay": {"room": (), "keys": ("room",)},
}
"""By saga and step: the steps whose effects must stand, and whose outputs it is given."""
CHILD, PARENT = "stay", "journey"
"""A journey has a child, by a step of the child's name, between its ticket and its insurance."""
STARTED = tuple(sorted({*GRAPHS} - {CHILD}))
TOLERATED = {"letter.*": 1}
"""The fans of which some items may fail without failing the saga, and how many."""
_ITEM = re.compile(r"\.\d+$")


def place_of(step_id: str) -> str:
    """Return the name that a step has in its graph."""
    return _ITEM.sub(".*", step_id)


def fan_of(place: str) -> str | None:
    """Return the fan whose items have this place, or None."""
    fan, dot, _ = place.partition(".*")
    return fan if dot else None


def effects_of(saga_name: str, steps: Mapping[str, Any]) -> set[str]:
    """Return the steps that act in a saga which was started with these steps' facts."""
    found = set()
    for place in GRAPHS[saga_name]:
        fan = fan_of(place)
        found |= {place} if fan is None else {f"{fan}.{index}" for index in range(len(steps[fan]))}
    return found


def of_place(step_ids: Collection[str], place: str) -> list[str]:
    """Return those of the steps that have this place; one that is no fan's has it, whether it is among them or not."""
    return [place] if fan_of(place) is None else [i for i in step_ids if place_of(i) == place]
