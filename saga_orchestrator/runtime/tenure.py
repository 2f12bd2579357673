"""One saga in this process's hands: its facts, its state, and the payloads that its steps need.

Who holds a saga under a lease need not read it: what the row says is known, until a write is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from ..definition.io import Payloads
from ..definition.saga import SagaDefinition
from ..errors import SagaStateError
from ..kernel.effects import Phase, Record, RecordStatus
from ..kernel.notes import ONCE, ONCE_UNDO, name_of
from ..kernel.projection import status_of
from ..kernel.rewind import REWIND, REWOUND
from ..kernel.state import State
from ..kernel.transition import NOTIFY
from ..kernel.waits import SIGNAL, TIMEOUT
from ..storage.contract import Store
from ..storage.database_errors import Fault, fault_of
from ..storage.rows import Head, HistoryRow
from .members import text_of
from .notes import NoteBook, noted

T = TypeVar("T")
_PAUSE = 0.1
"""Seconds between two tries to read."""
_DOUBTS = 50
"""How often a read is tried whose error may be the database's or the row's."""


@dataclass(slots=True)
class Past:
    """The payloads of a saga's history that are still needed, as JSON texts, by step."""

    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    doubted: set[str] = field(default_factory=set)
    """The steps with an attempt that may have acted: its input outlives those of attempts that surely did not."""
    heard: dict[str, str | None] = field(default_factory=dict)
    """The event that ended a step's last wait; None if it was ended by time."""
    patches: list[str] = field(default_factory=list)
    """What operators have changed of the initial data."""
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    """What steps have noted of their work, by what history calls the note, and then by key; of two the first counts."""
    latest_event: str | None = None
    """What woke the step that is at work; its success uses it up."""
    latest_is_event: bool = False
    """Whether that is an event with a type, and not the bare payload of a notification."""

    def learn(self, rows: Iterable[Record | HistoryRow]) -> None:
        """Take in further history."""
        for row in rows:
            if row.phase == Phase.EXECUTE:
                if row.input is not None and (row.status != RecordStatus.ERROR or row.step_id not in self.doubted):
                    self.inputs[row.step_id] = row.input
                if row.status == RecordStatus.IN_DOUBT:
                    self.doubted.add(row.step_id)
                if row.output is not None and row.status in (RecordStatus.SUCCESS, RecordStatus.SKIPPED):
                    self._learn_output(row.step_id, row.output)
            elif row.phase == Phase.ORDER:
                self._learn_event(row)

    def _learn_output(self, step_id: str, output: str) -> None:
        self.outputs[step_id], self.latest_event, self.latest_is_event = output, None, False
        if self.notes:  # what an undo has done without this output is to be done with it
            self.notes.pop(name_of(step_id, undoing=True), None)

    def _learn_event(self, row: Record | HistoryRow) -> None:
        what, _, step_id = row.step_id.partition(":")
        if what in (SIGNAL, TIMEOUT):
            self.heard[step_id] = row.input
        if what == REWIND and row.input is not None:
            self.patches.append(row.input)
        if what in (ONCE, ONCE_UNDO) and row.input is not None:
            key, stored = noted(row.input)
            self.notes.setdefault(row.step_id, {}).setdefault(key, stored)
        for forgotten in rewound(row):
            self.doubted.discard(forgotten)
            for name in (ONCE, ONCE_UNDO):
                self.notes.pop(f"{name}:{forgotten}", None)
            for known in (self.inputs, self.outputs, self.heard):
                known.pop(forgotten, None)
        if what in (SIGNAL, NOTIFY) and row.input is not None:
            self.events.append(row.input)
            self.latest_event, self.latest_is_event = row.input, what == SIGNAL

    def output(self, step_id: str) -> str:
        """Return what the step returned.

        Raises:
            SagaStateError: It has no recorded output.
        """
        try:
            return self.outputs[step_id]
        except KeyError:
            raise SagaStateError(f"Step '{step_id}' has no recorded output.") from None


def rewound(row: Record | HistoryRow) -> list[str]:
    """Return the steps of which a row says that they are such as never ran."""
    if row.phase != Phase.ORDER or row.input is None or row.step_id.partition(":")[0] != REWOUND:
        return []
    steps: list[str] = json.loads(row.input)
    return steps


@dataclass(slots=True)
class Tenure:
    """A saga that this process owns, from its claim to its release."""

    saga_id: UUID
    saga_name: str
    aggregation_id: str
    trace_id: str
    definition: SagaDefinition
    token: UUID
    revision: int
    state: State
    last_error: str | None
    initial: str
    store: Store
    lease_until: float = 0.0
    """When the lease ends, by the event loop's clock."""
    known_past: Past = field(default_factory=Past)
    past_is_known: bool = False
    parent_id: UUID | None = None
    book: NoteBook | None = None
    """What the steps at work do in parts; its driver's."""
    progress: dict[str, Any] = field(default_factory=dict)
    """How far the steps at work have come, as they say."""

    @classmethod
    def of_newborn(cls, head: Head, initial: str, definition: SagaDefinition, state: State, store: Store) -> Tenure:
        """Return the tenure of a saga that this process has just made; it has no past."""
        assert head.step_execution_token is not None
        return cls(
            head.id,
            head.saga_name,
            head.aggregation_id,
            head.trace_id,
            definition,
            head.step_execution_token,
            head.revision,
            state,
            head.last_error,
            initial,
            store,
            past_is_known=True,
            parent_id=head.parent_id,
        )

    async def past(self) -> Past:
        """Return the payloads of the saga's history; read once, for a saga that others have begun.

        A database that is away is waited for, as long as the owner's lease lasts: it is no reason for a step to fail.
        """
        while not self.past_is_known:
            recorded = self.state.recorded
            rows = (await patiently(lambda: self.store.history([self.saga_id])))[self.saga_id]
            if recorded == self.state.recorded:  # otherwise more was committed while these were being read
                found = Past()
                found.learn(rows)
                self.known_past, self.past_is_known = found, True
        return self.known_past

    def has_parts(self, step_id: str, attempt: int) -> bool:
        """Return whether a part of a step is done, or may be, by this attempt or an earlier one."""
        is_noted = name_of(step_id, undoing=False) in self.known_past.notes
        return is_noted or (self.book is not None and self.book.has_begun((step_id, attempt, False)))

    @property
    def has_ended(self) -> bool:
        """Whether the saga is over, as far as this process knows."""
        return status_of(self.definition.graph, self.state).is_terminal

    def initial_data(self, payloads: Payloads, scope: str | None = None) -> Any:
        """Return what the saga, or a part of it, was started with, as fresh plain values."""
        data = payloads.load(self.initial if scope is None else self.known_past.output(scope))
        for patch in self.known_past.patches if scope is None else ():
            data = {**data, **payloads.load(patch)}
        return data


async def patiently(read: Callable[[], Awaitable[T]], is_over: Callable[[], bool] = lambda: False) -> T:
    """Read from the database; while it is away, again and again, until the reader's own time is over.

    An error of an unknown kind is taken for the database's for a while.
    """
    unknown = 0
    while True:
        try:
            return await read()
        except Exception as error:
            fault = fault_of(error)
            unknown += fault is Fault.UNKNOWN
            if is_over() or fault is Fault.ROW or unknown == _DOUBTS:
                raise
        await asyncio.sleep(_PAUSE)


def initial_of(head: Head) -> str:
    """Return the JSON text of what a saga was started with."""
    return text_of(head.context, "initial_data")


def context_of(initial: str) -> str:
    """Return the JSON text of the `context` column for this initial data."""
    return f'{{"initial_data":{initial}}}'
