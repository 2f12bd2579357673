"""States as rows hold them, read once each: every check of a run looks at the same few."""

from __future__ import annotations

from functools import lru_cache

from saga_orchestrator.kernel import codec
from saga_orchestrator.kernel.state import State


@lru_cache(maxsize=4096)
def decode(text: str) -> State:
    """Return the state that a row holds."""
    return codec.decode(text)
