"""What the auditor knows of the sagas, written down a second time: which effects come before which.

Deliberately not read from the definitions: the ledger judges with its own copy. Steps that only read are left out.
"""

from __future__ import annotations

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
}
"""By saga and step: the steps whose effects must stand, and whose outputs it is given."""
