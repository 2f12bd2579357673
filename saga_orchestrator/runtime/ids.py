"""Identifiers that sort by time, so that the indexes they lead stay dense."""

from __future__ import annotations

import os
import time
from uuid import UUID


def new_id() -> UUID:
    """Return a UUID of version 7: 48 bits of Unix milliseconds, then chance (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10))
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (chance >> 68 & 0xFFF) << 64
    return UUID(int=value | 0b10 << 62 | chance & 0x3FFF_FFFF_FFFF_FFFF)
