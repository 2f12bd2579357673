"""A state in the making: what one decision changes, collected before it is frozen again.

A draft lives inside one call of `decide` and never leaves it. `put` is the only way by which a step changes its status.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from ..definition.graph import Graph
from .effects import Decision, Phase, Record, RecordStatus, Verdict, Work
from .projection import work_of
from .state import Course, State
from .step_status import OMITTED, PENDING, Failed, Missed, Probing, Running, Skipped, StepStatus, Succeeded
from .undo_status import Undoing, Waived

LONGEST = timedelta(days=36_500)
"""The longest pause or timeout that is kept to the letter: a century from now there still are dates."""


class Facts(TypedDict, total=False):
    """What else a history row says; see `Record`."""

    input: str | None
    output: str | None
    error: str | None
    skipped: bool
    actor: str | None
    reason: str | None
    started_at: datetime | None


class Draft:
    """The working copy of a `State`."""

    __slots__ = (
        *("before", "course", "deadline", "done", "fans", "graph", "now"),
        *("action", "base", "rewind", "spent"),
        *("open", "overdue", "paused", "quarantined", "records", "recoveries", "stops", "touched"),
    )

    def __init__(self, graph: Graph, before: State, now: datetime) -> None:
        self.base, self.graph, self.before, self.now = graph, graph.unfolded(before.fans), before, now
        self.spent, self.rewind = before.spent, before.rewind
        self.open, self.done = dict(before.open), dict(before.done)
        self.course, self.recoveries, self.quarantined = before.course, before.recoveries, before.quarantined
        self.deadline, self.overdue, self.fans = before.deadline, before.overdue, before.fans
        self.paused, self.stops, self.action = before.paused, before.stops, before.action
        self.records: list[Record] = []
        self.touched: list[str] = []

    def of(self, step_id: str) -> StepStatus:
        return self.open.get(step_id) or self.done.get(step_id) or PENDING

    def put(self, step_id: str, status: StepStatus) -> None:
        """Give the step a new status."""
        goes, leaves = (self.open, self.done) if status.is_open else (self.done, self.open)
        leaves.pop(step_id, None)
        goes[step_id] = status
        self.touched.append(step_id)

    def start(self, step_id: str, attempt: int, failures: int = 0, *, tainted: bool = False, heard: int = 0) -> None:
        """Set an attempt of the step going."""
        self.put(step_id, Running(attempt, failures, self._until(self.graph.nodes[step_id].timeout), tainted, heard))

    def probe(self, step_id: str, status: Running | Probing, *, retryable: bool = True, lost: bool = False) -> None:
        """Ask the step whether the attempt that is in doubt has acted."""
        until = self._until(self.graph.nodes[step_id].timeout)
        self.put(step_id, Probing(status.attempt, status.failures, until, retryable, lost, status.heard))

    def undo(self, step_id: str, attempt: int, failures: int = 0, *, with_output: bool, heard: int = 0) -> None:
        """Set a compensation of the step going."""
        until = self._until(self.graph.nodes[step_id].compensation_timeout)
        self.put(step_id, Undoing(attempt, failures, until, with_output, heard))

    def choose(self, choice: str, label: str | None) -> None:
        """Omit whatever belongs to another branch of this choice, if it is one."""
        for step_id, wanted in self.graph.choices.get(choice, ()):
            if wanted != label:
                self.put(step_id, OMITTED)

    def unfold(self, first: str, items: int | None) -> None:
        """Put a step for each item into the graph, if this is the first step of a fan."""
        if first in self.graph.fans and first not in self.fans:
            self.fans = {**self.fans, first: items or 0}
            self.graph = self.graph.unfolded(self.fans)

    def forget(self, part: Collection[str]) -> None:
        """Make steps such as never ran, and fold up the fans that begin among them."""
        for steps in (self.open, self.done):
            for step_id in steps.keys() & part:
                del steps[step_id]
        self.fans = {first: items for first, items in self.fans.items() if first not in part}
        self.graph = self.base.unfolded(self.fans)
        self.touched.clear()

    def may_miss(self, step_id: str) -> bool:
        """Return whether the step is one of many, and one more of them may fail without failing the saga."""
        fan = self.graph.nodes[step_id].fan
        if fan is None or self.course is not Course.FORWARD:
            return False
        missed = [i for i, s in self.done.items() if isinstance(s, Missed) and self.graph.nodes[i].fan == fan]
        return len(missed) < self.graph.fans[fan].tolerate

    def after(self, pause: timedelta) -> datetime:
        """Return the time when a pause that begins now will be over."""
        return self.now + max(min(pause, LONGEST), timedelta(0))

    def record(
        self, phase: Phase, status: RecordStatus, step_id: str, attempt: int = 0, **facts: Unpack[Facts]
    ) -> None:
        """Note a row for the history."""
        name = step_id if phase is Phase.ORDER else self.graph.nodes[step_id].name
        self.records.append(Record(self.seq(), phase, status, step_id, name, attempt, **facts))

    def seq(self) -> int:
        """Return the number of the next history row."""
        return self.before.recorded + len(self.records)

    def has_acted(self, step_id: str) -> bool:
        """Return whether the step has acted, or may have, and has not been undone."""
        status = self.of(step_id)
        acted = isinstance(status, Succeeded | Waived) or status == Skipped(acted=True)
        return acted or getattr(status, "tainted", False)

    def has_failed(self) -> bool:
        return True in [isinstance(status, Failed) for status in self.open.values()]

    def finals_live(self) -> bool:
        """Return whether a step is in flight whose effect would forbid the way back."""
        return any(s.is_live and self.graph.nodes[i].kind.is_final for i, s in self.open.items())

    def is_committed(self) -> bool:
        """Return whether the saga is past the point of no return: a PIVOT or RETRIABLE step has acted, or may have."""
        return any(self.has_acted(step_id) for step_id in self.graph.final)

    def decision(self) -> Decision:
        """Freeze the draft."""
        before = self.before
        state = State(
            before.key,
            self.open,
            self.done,
            self.course,
            before.recorded + len(self.records),
            self.recoveries,
            self.quarantined,
            self.deadline,
            self.overdue,
            self.fans,
            self.spent,
            self.rewind,
            self.paused,
            self.stops,
            self.action,
        )
        return Decision(state, self._new_work(), tuple(self.records), Verdict.APPLIED)

    def _new_work(self) -> tuple[Work, ...]:
        if self.quarantined:
            return ()
        before = self.before.open
        begun = [(i, status) for i, status in self.open.items() if status.is_live and status is not before.get(i)]
        return tuple([work_of(i, status) for i, status in begun])

    def _until(self, timeout: timedelta | None) -> datetime | None:
        return None if timeout is None else self.after(timeout)
