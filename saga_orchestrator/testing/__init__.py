"""For tests, yours and ours: sagas in memory, a clock that stands still, and the contract that every store keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import ManualClock
from .memory import MemoryStore

if TYPE_CHECKING:
    from .contract import StoreContract

__all__ = ["ManualClock", "MemoryStore", "StoreContract"]


def __getattr__(name: str) -> Any:
    """Load the contract only when it is asked for, so that pytest can be told first to rewrite its assertions."""
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .contract import StoreContract  # noqa: PLC0415 - see above

    return StoreContract
