"""Values: classes that are equal by their fields, can be hashed, and are never changed once made.

To a type checker and an editor `value` is `dataclasses.dataclass`, and `frozen=True` forbids assignment. At run time
nothing guards the fields: a guarded instance takes four times as long to make, and each decision makes several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from collections.abc import Callable
    from dataclasses import dataclass

    def value(*, frozen: bool, **options: bool) -> Callable[[type], type]:
        """Return the decorator that makes a class a value."""
        return dataclass(unsafe_hash=frozen, **options)


__all__ = ["value"]
