"""For tests, yours and ours: sagas in memory, a clock that stands still, and the contract that every store keeps."""

from .clock import ManualClock
from .memory import MemoryStore

__all__ = ["ManualClock", "MemoryStore"]
