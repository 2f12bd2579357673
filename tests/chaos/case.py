"""One saga, as the auditor sees it: what the tables say, and what the ledger knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from saga_orchestrator import SagaSnapshot
from saga_orchestrator.kernel.step_status import Missed, StepStatus
from saga_orchestrator.storage.rows import HistoryRow
from tests.chaos.ledger import Slot
from tests.chaos.sagas import UNDO_ATTEMPTS


@dataclass(frozen=True)
class Case:
    """One saga, from both sides."""

    saga: SagaSnapshot
    steps: Mapping[str, StepStatus]
    past: list[HistoryRow]
    slots: Mapping[str, Slot]
    bookings: int = 0
    parent: UUID | None = None
    effects: frozenset[str] = frozenset()
    """The steps that act, where all goes well: the items of its fans are in the data that it was started with."""

    @property
    def unbooked(self) -> bool:
        """Return whether its booking was undone."""
        return type(self.steps.get("book")).__name__ == "Undone"

    @property
    def standing(self) -> set[str]:
        """The steps whose effects stand, as the ledger says."""
        return {step_id for step_id, slot in self.slots.items() if slot.stands}

    def in_doubt(self, step_id: str) -> bool:
        """Return whether the history admits that nobody knows whether the step, or its undo, has acted."""
        return any(row.step_id == step_id and row.status == "IN_DOUBT" for row in self.past)

    def undo_failed(self, step_id: str) -> bool:
        """Return whether an undo of the step has failed for good at some time."""
        failures = [r for r in self.past if (r.step_id, r.phase) == (step_id, "COMPENSATE") and r.status != "SUCCESS"]
        return len(failures) >= UNDO_ATTEMPTS or any("PermanentError" in (row.error or "") for row in failures)

    def ordered(self, name: str) -> bool:
        return any(row.phase == "ORDER" and row.step_id.partition(":")[0] == name for row in self.past)

    def missed(self) -> set[str]:
        """Return the items that failed and were tolerated."""
        return {step_id for step_id, status in self.steps.items() if isinstance(status, Missed)}

    def revived(self) -> bool:
        """Return whether an operator has tried it again, whatever had become of its parent by then."""
        return any(row.step_id.partition(":")[0] == "retry" and row.actor == "chaos" for row in self.past)
