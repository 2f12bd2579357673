"""What follows from a decision: work to do after the commit, records to write with it, and the verdict on the event."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from .state import State
from .value import value


@value(frozen=True, slots=True)
class Execute:
    """Run an attempt of a step. `tainted`: an earlier one may have acted. `heard`: it goes on with the last event."""

    step_id: str
    attempt: int
    tainted: bool = False
    heard: int = 0


@value(frozen=True, slots=True)
class Probe:
    """Ask a step whether an attempt in doubt has acted."""

    step_id: str
    attempt: int


@value(frozen=True, slots=True)
class Compensate:
    """Undo a step. `with_output` False: what it returned was never learnt. `heard`: as of `Execute`."""

    step_id: str
    attempt: int
    with_output: bool = True
    heard: int = 0


@value(frozen=True, slots=True)
class Collect:
    """Look whether the event that a step has asked for has come already."""

    step_id: str
    attempt: int


Work = Execute | Probe | Compensate | Collect


class Phase(StrEnum):
    """What a history row is about."""

    EXECUTE = "EXECUTE"
    COMPENSATE = "COMPENSATE"
    ORDER = "ORDER"


class RecordStatus(StrEnum):
    """How the attempt, or the order, of a history row ended."""

    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    IN_DOUBT = "IN_DOUBT"
    WAITING = "WAITING"
    SKIPPED = "SKIPPED"


class Record(NamedTuple):
    """One history row. Payloads are opaque JSON texts: the kernel carries them and never reads them.

    Attributes:
        seq: The row's number within its saga, from 0.
        step_id: The step, or for an order the order's name.
        step_name: The name of the step's class, or again the order's.
    """

    seq: int
    phase: Phase
    status: RecordStatus
    step_id: str
    step_name: str
    attempt: int = 0
    input: str | None = None
    output: str | None = None
    error: str | None = None
    skipped: bool = False
    actor: str | None = None
    reason: str | None = None
    started_at: datetime | None = None


class Verdict(StrEnum):
    """What became of an event."""

    APPLIED = "APPLIED"
    STALE = "STALE"
    """It is the reply of an attempt that is over; nothing moved."""
    DUPLICATE = "DUPLICATE"
    """It orders what is already being done; nothing moved, and `reason` says so."""
    UNMATCHED = "UNMATCHED"
    """Nothing waits for it; nothing moved."""
    REFUSED = "REFUSED"
    """It is an order at a wrong moment; nothing moved, and `reason` says why."""


class Decision(NamedTuple):
    """What `decide` answers. `work` is only what is new; `projection.outstanding` is all of it."""

    state: State
    work: tuple[Work, ...]
    records: tuple[Record, ...]
    verdict: Verdict
    reason: str = ""
