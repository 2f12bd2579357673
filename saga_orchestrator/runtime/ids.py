"""Identifiers that sort by time, so that the indexes they lead stay dense."""

from __future__ import annotations

import os
import time
from datetime import datetime
from uuid import UUID


def new_id(at: datetime | None = None) -> UUID:
    """Return a UUID of version 7: 48 bits of Unix milliseconds, then chance (RFC 9562, section 5.7).

    Args:
        at: The moment that it is of; now, by this machine's clock.
    """
    milliseconds = time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)
    chance = int.from_bytes(os.urandom(10))
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (chance >> 68 & 0xFFF) << 64
    return UUID(int=value | 0b10 << 62 | chance & 0x3FFF_FFFF_FFFF_FFFF)


def idempotency_key(saga_id: object, step_id: str, phase: str) -> str:
    """Return the key under which a step's effect (or its undo) happens once, however often it is attempted."""
    return f"{saga_id}/{step_id}/{phase}"
