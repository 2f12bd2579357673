"""What a saga looks like from outside: plain values, assembled when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from ..definition.graph import Graph, Node
from ..definition.io import Payloads
from ..errors import PayloadError
from ..kernel.codec import decode
from ..kernel.effects import Phase, RecordStatus
from ..kernel.projection import residue
from ..kernel.state import SagaStatus, State
from ..storage.rows import Head, HistoryRow
from .error_text import hide_message, open_message
from .progress import StepProgress, progress_of
from .reading import OpenWait, open_waits
from .registry import Registry
from .tenure import initial_of, rewound


@dataclass(frozen=True, kw_only=True)
class SagaSnapshot:
    """Where a saga stands.

    Attributes:
        awaiting: ``event:`` and the types of the events, ``timer``, ``retry``, ``pause``, ``operator``, None, or
            ``definition``: it is left to a process that has the definition it was started with. Of an aborted saga
            ``owner:`` and the time until which the process that had it may be at work on it.
        step_execution_token: Of a saga that waits, the token for `notify`: that of its one open wait, or of its pause
            before a retry; None once it is over.
        waits: The waits for events that are open, each with a token of its own.
        progress: How far the steps in flight have come, by step id, where they say so.
        deadline_at: When `run_due` will next look at it, in UTC; None when nothing is due by time.
        last_error: The error that a person wants to see: of a failed saga, the one that turned it.
        residue: The steps whose effects stand although the saga failed, was aborted, or is stuck; or, of one that has
            completed, although they failed and that was tolerated.
    """

    id: UUID
    saga_name: str
    definition_version: int
    aggregation_id: str
    trace_id: str
    status: SagaStatus
    awaiting: str | None
    current_step_index: int
    retry_counter: int
    deadline_at: datetime | None
    step_execution_token: UUID | None
    last_error: str | None
    revision: int
    priority: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    residue: tuple[str, ...] = ()
    waits: tuple[OpenWait, ...] = ()
    progress: Mapping[str, StepProgress] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One finished attempt of a step, or one order of an operator.

    Attributes:
        phase: ``EXECUTE``, ``COMPENSATE`` or ``ORDER``.
        status: ``SUCCESS``, ``ERROR``, ``IN_DOUBT``, ``WAITING`` or ``SKIPPED``.
        step_id: The step, or the order's name.
        input: What the step was called with, as plain JSON values; so is `output`.
        undone_output: Beside a compensation, the output that it has undone, or was to undo: what its step had returned.
    """

    timestamp: datetime
    phase: str
    status: str
    step_id: str
    step_name: str
    attempt: int
    token: UUID | None
    input: Any
    output: Any
    error: str | None
    skipped: bool
    actor: str | None
    reason: str | None
    started_at: datetime | None
    undone_output: Any = None

    def __getitem__(self, key: str) -> Any:
        """Return a field by its name, so that an entry also reads as the dict that it once was."""
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        return getattr(self, key)


@dataclass(frozen=True, kw_only=True)
class SagaAdminSnapshot(SagaSnapshot):
    """Everything about a saga.

    Attributes:
        context: `saga_name`, `initial_data` and `step_outputs`, as plain JSON values.
        steps: The status of each step that has started.
        step_history: Oldest entry first.
    """

    context: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, str] = field(default_factory=dict)
    step_history: Sequence[HistoryEntry] = ()


@dataclass(frozen=True, kw_only=True)
class SagaResult:
    """What a saga has come to.

    Attributes:
        outputs: What its steps returned, by step id, as plain JSON values.
        error: Of a saga that did not complete, the error that turned it.
        residue: The steps whose effects stand although it did not complete.
    """

    saga_id: UUID
    status: SagaStatus
    outputs: Mapping[str, Any]
    error: str | None
    residue: tuple[str, ...]


def snapshot(head: Head, registry: Registry, payloads: Payloads) -> SagaSnapshot:
    """Return a saga's snapshot."""
    return SagaSnapshot(**_facts(head, payloads), residue=_residue(head, registry))


def admin_snapshot(head: Head, rows: Sequence[HistoryRow], registry: Registry, payloads: Payloads) -> SagaAdminSnapshot:
    """Return a saga's snapshot with its context and history."""
    context = {"saga_name": head.saga_name, "initial_data": _initial(head, payloads)}
    facts = {**_facts(head, payloads), "last_error": open_message(head.last_error, payloads)}
    return SagaAdminSnapshot(
        **facts,
        residue=_residue(head, registry),
        context={**context, "step_outputs": _outputs(head, rows, registry, payloads)},
        steps=_steps(head),
        step_history=_entries(rows, payloads),
    )


def result(head: Head, rows: Sequence[HistoryRow], registry: Registry, payloads: Payloads) -> SagaResult:
    """Return what a saga has come to."""
    error = None if head.status is SagaStatus.COMPLETED else hide_message(head.last_error)
    return SagaResult(
        saga_id=head.id,
        status=head.status,
        outputs=_outputs(head, rows, registry, payloads),
        error=error,
        residue=_residue(head, registry),
    )


def _outputs(head: Head, rows: Sequence[HistoryRow], registry: Registry, payloads: Payloads) -> dict[str, Any]:
    """Return what the steps returned, without those that only finish the saga."""
    definition = registry.find(head.saga_name, head.definition_version)
    finish = {step.step_id for step in definition.steps if step.is_finish} if definition else frozenset()
    return {step_id: output for step_id, output in outputs(rows, payloads).items() if step_id not in finish}


def outputs(rows: Sequence[HistoryRow], payloads: Payloads) -> dict[str, Any]:
    """Return what the steps returned."""
    done = (RecordStatus.SUCCESS, RecordStatus.SKIPPED)
    texts: dict[str, str | None] = {}
    for row in rows:
        if row.phase == Phase.EXECUTE and row.status in done:
            texts[row.step_id] = row.output
        for forgotten in rewound(row):
            texts.pop(forgotten, None)
    return {step_id: _shown(payloads, text) for step_id, text in texts.items() if text is not None}


def _entries(rows: Sequence[HistoryRow], payloads: Payloads) -> list[HistoryEntry]:
    """Return the history, each compensation with the output that its step had returned by then."""
    known: dict[str, str | None] = {}
    entries = []
    for row in rows:
        if row.phase == Phase.EXECUTE and row.status in (RecordStatus.SUCCESS, RecordStatus.SKIPPED):
            known[row.step_id] = row.output
        undone = known.get(row.step_id) if row.phase == Phase.COMPENSATE else None
        entries.append(_entry(row, payloads, undone))
    return entries


def _facts(head: Head, payloads: Payloads) -> dict[str, Any]:
    names = {field.name for field in fields(SagaSnapshot)} - {"residue", "waits", "progress"}
    facts = {name: getattr(head, name) for name in names}
    facts["last_error"] = hide_message(head.last_error)
    state = None if head.status.is_terminal else _state(head)
    waits = () if state is None else tuple(open_waits(head.id, state))
    token = waits[0].token if len(waits) == 1 else head.step_execution_token
    progress = {} if state is None else progress_of(head, state, payloads)
    return {**facts, "waits": waits, "progress": progress, "step_execution_token": token}


def _entry(row: HistoryRow, payloads: Payloads, undone: str | None) -> HistoryEntry:
    facts = row._asdict()
    del facts["saga_id"], facts["seq"]
    for name in ("input", "output"):
        facts[name] = None if facts[name] is None else _shown(payloads, facts[name])
    facts["error"] = open_message(row.error, payloads)
    return HistoryEntry(**facts, undone_output=None if undone is None else _shown(payloads, undone))


def _shown(payloads: Payloads, text: str) -> Any:
    """Return a payload for people: one that cannot be read is shown as what is wrong with it."""
    try:
        return payloads.load(text)
    except PayloadError as error:
        return {"unreadable": str(error)}


def _initial(head: Head, payloads: Payloads) -> Any:
    """Return what the saga was started with, for people, also if somebody has spoilt it."""
    try:
        return _shown(payloads, initial_of(head))
    except (KeyError, TypeError, ValueError) as error:
        return {"unreadable": repr(error)}


def _state(head: Head) -> State | None:
    try:
        return decode(head.state)
    except ValueError:
        return None


def _steps(head: Head) -> dict[str, str]:
    state = _state(head)
    return {} if state is None else {step_id: type(status).__name__ for step_id, status in state.all()}


def _residue(head: Head, registry: Registry) -> tuple[str, ...]:
    """Return the residue of a saga that is at rest; without its definition, whatever may be part of it."""
    if head.status not in (SagaStatus.FAILED, SagaStatus.STUCK, SagaStatus.COMPLETED):
        return ()
    definition = registry.find(head.saga_name, head.definition_version)
    state = _state(head)
    if state is None:
        return ()
    graph = definition.graph if definition else Graph.of(*(Node(step_id=step_id) for step_id, _ in state.all()))
    return residue(graph, state)
