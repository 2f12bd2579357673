"""The letter by which each status of a step is stored. A letter is never given to another status."""

from __future__ import annotations

from .step_status import (
    Asking,
    Failed,
    Missed,
    Omitted,
    Probing,
    Retrying,
    Running,
    Skipped,
    StepStatus,
    Succeeded,
    Waiting,
)
from .undo_status import Passed, UndoAsking, UndoFailed, Undoing, Undone, UndoRetrying, UndoWaiting, Waived

CODES: dict[type[StepStatus], str] = {
    Running: "R",
    Probing: "P",
    Retrying: "W",
    Failed: "F",
    Succeeded: "S",
    Skipped: "K",
    Undoing: "U",
    UndoRetrying: "V",
    UndoFailed: "X",
    Undone: "N",
    Passed: "A",
    Waived: "Y",
    Missed: "M",
    Omitted: "O",
    Asking: "Q",
    Waiting: "E",
    UndoAsking: "T",
    UndoWaiting: "D",
}
CLASSES = {code: cls for cls, code in CODES.items()}
