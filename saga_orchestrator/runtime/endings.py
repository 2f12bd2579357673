"""What a child says to its parent when it is over, posted by the very write that ends it: the end is never lost.

A letter only says that there is something to see. Who hears it looks at the child, which may have moved since.
"""

from __future__ import annotations

import json
from datetime import datetime
from uuid import UUID

from ..definition.child import ENDED
from ..kernel.state import SagaStatus
from ..storage.inbox import SAGA, address_of
from ..storage.rows import Letter
from .ids import new_id
from .signals import UNDELIVERED


def end_of(child: UUID, parent: UUID, revision: int, status: SagaStatus, now: datetime) -> Letter:
    """Return the letter that says that a child is over; a child that ends again, at another revision, says so again."""
    event_id, correlation = f"{child}/{revision}", str(child)
    said = {"type": ENDED, "payload": status.value, "event_id": event_id, "correlation_id": correlation}
    due = now + UNDELIVERED
    return Letter(new_id(now), address_of(SAGA, parent), ENDED, event_id, correlation, json.dumps(said), now, due)
