"""What a notification is for: whoever brings the token of a wait ends that wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ..definition.io import Payloads
from ..definition.saga import SagaDefinition
from ..definition.waiting import Event as Happening
from ..kernel.events import Event, Notified, Signalled
from ..kernel.state import State
from ..storage.rows import Head
from .claims import Intake
from .letters import opened, sealed
from .reading import OpenWait, open_waits


@dataclass
class Notice(Intake):
    """A notification on its way to one saga: an event for the wait of its token, or the end of a retry's pause.

    Raises:
        PayloadError: What it says cannot be stored, or is not what the step wants.
    """

    event: Event = field(default_factory=Notified)
    payloads: Payloads = field(kw_only=True)
    token: UUID = field(kw_only=True)
    said: Any = field(kw_only=True)

    def event_for(self, head: Head, definition: SagaDefinition, state: State) -> Event | None:
        waits = open_waits(head.id, state)
        meant = [wait for wait in waits if wait.token == self.token]
        fits = head.lease_owner is None and self.token == head.step_execution_token and not head.status.is_terminal
        if not meant and not fits:
            return None
        if not meant and len(waits) == 1 and not _pauses(head):
            meant = waits
        return self._for_wait(definition, meant[0]) if meant else Notified(self._kept(self.said))

    def _for_wait(self, definition: SagaDefinition, wait: OpenWait) -> Event | None:
        event = self.said
        if not isinstance(event, Happening):
            event = Happening(type=wait.event_types[0], payload=event, correlation_id=wait.correlation_id)
        if event.type not in wait.event_types:
            return None
        if None not in (event.correlation_id, wait.correlation_id) and event.correlation_id != wait.correlation_id:
            return None
        content = sealed(self.payloads, event)
        opened(self.payloads, definition.step(wait.step_id).shape.event_model, content)
        return Signalled(event.type, event.correlation_id, content, wait.step_id)

    def _kept(self, said: Any) -> str | None:
        return None if said is None else self.payloads.dump(said, what="event")


def _pauses(head: Head) -> bool:
    """Return whether the saga also waits for its next attempt."""
    return head.retry_counter > 0
