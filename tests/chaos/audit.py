"""What must be true once everybody has finished: the saga tables, held against the ledger and the promises.

Lost: a start that was promised and has no row, or an effect of a saga that has none. Stranded: a saga that nobody will
ever move again. Doubled: a second effect for one step, or a second saga for one start. Wrong: a saga that says of the
world what the ledger denies, went another way than its data and its orders explain, or ignored an order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_orchestrator import SagaAdmin, SagaOrchestrator, SagaStatus
from saga_orchestrator.kernel.codec import decode
from saga_orchestrator.kernel.step_status import Failed, Missed
from tests.chaos.case import Case
from tests.chaos.graphs import TOLERATED, effects_of, place_of
from tests.chaos.kin import check_kin, waits_for_a_person
from tests.chaos.ledger import Ledger
from tests.chaos.tables import Booking, ChaosSaga

_EXPLAINED = re.compile(
    r"chaos: |timed out|the worker was lost|aborted while in flight|probe: |quarantined: \d+ owners"
    r"|DBAPIError|InterfaceError|OperationalError|ConnectionError"  # of a step that works in the database itself
    r"|child saga \S+ (\('stay'\) )?is (COMPENSATED|FAILED)"  # which `check_kin` holds against the child
)
_TURNED_AWAY = "chaos: turned away"
_STRANDED = """
SELECT count(*) FROM chaos_saga WHERE status NOT IN ('COMPLETED', 'COMPENSATED', 'FAILED')
AND deadline_at IS NULL AND awaiting IS NULL
"""
_TORN = """
SELECT s.id, count(h.seq), max(h.seq) FROM chaos_saga s JOIN chaos_saga_history h ON h.saga_id = s.id
GROUP BY s.id HAVING count(h.seq) <> max(h.seq) + 1
"""
_BUSINESS = "SELECT b.number, s.aggregation_id FROM chaos_business b LEFT JOIN chaos_saga s ON s.id = b.saga_id"
_OVER = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED, SagaStatus.STUCK)


@dataclass
class Findings:
    """What the audit found; empty lists are what it hopes for."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stranded: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    evidence: list[str] = field(default_factory=list)
    """Everything about the sagas that the findings name."""

    @property
    def all(self) -> list[str]:
        """Everything that is not as it must be."""
        return [f"{name}: {what}" for name in ("lost", "doubled", "wrong", "stranded") for what in getattr(self, name)]

    def take(self, what: str) -> None:
        """Sort in what the ledger has seen by itself."""
        name, _, rest = what.partition(": ")
        getattr(self, name).append(rest)


async def audit(engine: AsyncEngine, orchestrator: SagaOrchestrator[ChaosSaga], ledger: Ledger) -> Findings:
    """Hold the tables against the ledger."""
    findings = Findings()
    for violation in ledger.violations:
        findings.take(violation)
    async with engine.connect() as connection:
        counted = select(Booking.saga_id, func.count()).group_by(Booking.saga_id)
        bookings = {row[0]: row[1] for row in await connection.execute(counted)}
    cases = await _cases(orchestrator, ledger, bookings)
    findings.statuses.update(case.saga.status.value for case in cases.values())
    findings.steps = sum(len(case.past) for case in cases.values())
    await _ask_sql(engine, findings)
    _check_promises(ledger, cases, findings)
    _check_orders(ledger, cases, findings)
    for case in cases.values():
        for check in _CHECKS:
            findings.wrong += [f"{case.saga.id} {case.saga.status.value}: {what}" for what in check(case)]
        if case.saga.status not in _OVER and not waits_for_a_person(case, cases):
            findings.stranded.append(f"{case.saga}")
    findings.wrong += check_kin(cases)
    _check_undo_order(ledger, cases, findings)
    named = "\n".join(findings.all)
    findings.evidence = [line for saga_id, case in cases.items() if saga_id in named for line in _evidence(case)]
    return findings


def _evidence(case: Case) -> Iterator[str]:
    yield f"{case.saga}"
    yield from (f"    {step_id}: {status}" for step_id, status in case.steps.items())
    yield from (f"    ledger {step_id}: {slot}" for step_id, slot in case.slots.items())
    yield from (f"    {tuple(map(str, row))}" for row in case.past)


async def _cases(
    orchestrator: SagaOrchestrator[ChaosSaga], ledger: Ledger, bookings: Mapping[UUID, int]
) -> dict[str, Case]:
    admin, store = SagaAdmin(orchestrator.engine), orchestrator.engine.store
    cases, cursor = {}, None
    while True:
        page = await admin.list_sagas(limit=500, cursor=cursor)
        pasts = await store.history([saga.id for saga in page.items])
        for saga in page.items:
            head = await store.head(saga.id)
            assert head is not None
            cases[str(saga.id)] = Case(
                saga,
                dict(decode(head.state).all()),
                pasts[saga.id],
                ledger.sagas.get(str(saga.id), {}),
                bookings.get(saga.id, 0),
                head.parent_id,
                frozenset(effects_of(saga.saga_name, json.loads(head.context)["initial_data"]["steps"])),
            )
        cursor = page.next_cursor
        if cursor is None:
            return cases


async def _ask_sql(engine: AsyncEngine, findings: Findings) -> None:
    async with engine.connect() as connection:
        if stranded := (await connection.execute(text(_STRANDED))).scalar():
            findings.stranded.append(f"{stranded} active sagas are neither due nor awaiting")
        for row in await connection.execute(text(_TORN)):
            findings.wrong.append(f"the history of {row[0]} has {row[1]} rows, and the last is number {row[2]}")
        for number, aggregation_id in await connection.execute(text(_BUSINESS)):
            if number != aggregation_id:
                findings.lost.append(f"business row {number} was committed without its saga")


def _check_promises(ledger: Ledger, cases: Mapping[str, Case], findings: Findings) -> None:
    """Every start that returned is there, every one that was rolled back is not, and none is there twice."""
    there = Counter(case.saga.aggregation_id for case in cases.values())
    findings.doubled += [f"{count} sagas for {number}" for number, count in there.items() if count > 1]
    for note in ledger.notes:
        match note["what"]:
            case "started" if note["saga"] not in cases:
                findings.lost.append(f"{note['number']} was started as {note['saga']}, which is not there")
            case "started" if cases[note["saga"]].saga.aggregation_id != note["number"]:
                findings.wrong.append(f"the start of {note['number']} was answered with {note['saga']}, another's")
            case "committed" if note["number"] not in there:
                findings.lost.append(f"{note['number']} was committed, and is not there")
            case "rolled back" if note["number"] in there:
                findings.wrong.append(f"{note['number']} was rolled back, and is there")
            case "wrongly refused":
                findings.wrong.append(f"{note['number']} was refused: {note['error']}")
    for saga, steps in ledger.sagas.items():
        if saga not in cases:
            findings.lost.append(f"steps {sorted(steps)} of {saga} were called, and the saga is not there")


def _check_orders(ledger: Ledger, cases: Mapping[str, Case], findings: Findings) -> None:
    """An order that was accepted is in the history, and a cancelled saga does not complete."""
    for note in (note for note in ledger.notes if note["what"] == "order"):
        case = cases.get(note["saga"])
        if case is None or note["answer"].startswith("wrong"):
            findings.lost.append(f"an order found no saga: {note}")
        elif note["answer"] == "accepted":
            findings.wrong += [f"{case.saga.id} {case.saga.status.value}: {what}" for what in _obeyed(case, note)]


def _obeyed(case: Case, note: Mapping[str, Any]) -> Iterator[str]:
    name = note["name"]
    recorded = any(row.reason == note["mark"] for row in case.past)
    if name in ("retry_step", "abort") and not recorded:
        yield f"{name} {note['mark']} was accepted, and is not in the history"
    if name == "cancel" and case.saga.status is SagaStatus.COMPLETED and not case.ordered("retry"):
        yield "it was cancelled, and completed"
    if name == "abort" and case.saga.status is SagaStatus.COMPLETED and not case.ordered("retry"):
        yield "it was aborted, and completed"


# --- one saga ---------------------------------------------------------------------------------------------------------


def _status_tells_the_truth(case: Case) -> Iterator[str]:
    wanted, standing, residue = case.effects - case.missed(), case.standing, set(case.saga.residue)
    match case.saga.status:
        case SagaStatus.COMPLETED if standing - residue != wanted:
            yield f"{wanted ^ (standing - residue)} do not stand, or stand and are not wanted"
        case SagaStatus.COMPENSATED if standing:
            yield f"{standing} stand"
        case SagaStatus.COMPENSATED if not any(slot.undone for slot in case.slots.values()) and not case.unbooked:
            yield "nothing was ever undone"
        case SagaStatus.FAILED if standing - residue:
            yield f"{standing - residue} stand and are not in its residue {residue}"
        case SagaStatus.STUCK if case.saga.awaiting != "operator":
            yield f"it awaits {case.saga.awaiting}"


def _steps_tell_the_truth(case: Case) -> Iterator[str]:
    """Each step's status, and the residue, against the ledger."""
    for step_id in case.effects:
        status = case.steps.get(step_id)
        name, stands = type(status).__name__ if status else "Pending", step_id in case.standing
        stated = step_id in case.saga.residue
        if name == "Succeeded" and not stands:
            yield f"{step_id} is Succeeded, and does not stand"
        if name in ("Pending", "Undone", "Passed") and stands:
            yield f"{step_id} is {name}, and stands"
        if name in ("Failed", "Missed", "UndoFailed") and stands and not stated:
            yield f"{step_id} is {status}, stands, and is not stated in the residue"
        if stated and not stands and not case.in_doubt(step_id):
            yield f"{step_id} is stated in the residue; it does not stand, and was never in doubt"
        if isinstance(status, Failed) and not isinstance(status, Missed) and case.saga.status is SagaStatus.COMPLETED:
            yield f"{step_id} has failed"
        if name in ("Running", "Probing", "Retrying", "Undoing", "UndoRetrying"):
            yield f"{step_id} is still {name}"


def _outputs_are_the_effects(case: Case) -> Iterator[str]:
    for row in case.past:
        if row.phase == "EXECUTE" and row.status == "SUCCESS" and row.step_id in case.slots:
            effect = case.slots[row.step_id].effect
            if f'"{effect}"' not in (row.output or ""):
                yield f"{row.step_id} recorded {row.output}, its effect is {effect}"


def _history_is_explained(case: Case) -> Iterator[str]:
    """Nothing failed but by the data, by a lost worker, or by an order."""
    for row in case.past:
        if row.status in ("ERROR", "IN_DOUBT") and not _EXPLAINED.search(row.error or ""):
            yield f"{row.step_id} {row.phase} failed for a reason that is not its own: {row.error}"
        if _TURNED_AWAY in (row.error or ""):
            yield f"{row.step_id} was executed by the saga's owner after its undo"
    if "quarantined" in (case.saga.last_error or ""):
        yield f"it is quarantined: {case.saga.last_error}"


def _bookings_are_what_is_said(case: Case) -> Iterator[str]:
    """A transactional step's rows are there exactly if the saga says that it stands."""
    name = type(case.steps.get("book")).__name__
    stands = name in ("Succeeded", "UndoFailed", "Waived", "Undoing", "UndoRetrying")
    if case.bookings != int(stands):
        yield f"book is {name}, and there are {case.bookings} bookings"


def _no_more_is_missed_than_may_be(case: Case) -> Iterator[str]:
    for place, missed in Counter(map(place_of, case.missed())).items():
        if missed > TOLERATED.get(place, 0):
            yield f"{missed} of {place} were missed"


_CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    _status_tells_the_truth,
    _steps_tell_the_truth,
    _outputs_are_the_effects,
    _history_is_explained,
    _bookings_are_what_is_said,
    _no_more_is_missed_than_may_be,
)


def _check_undo_order(ledger: Ledger, cases: Mapping[str, Case], findings: Findings) -> None:
    """A step was undone while one that depends on it stood: only if that one's own undo had failed.

    Or it is a child that an operator has set going again.
    """
    revived = {(str(case.parent), case.saga.saga_name) for case in cases.values() if case.revived()}
    for saga, step, dependent in ledger.early_undos:
        if saga in cases and not cases[saga].undo_failed(dependent) and (saga, dependent) not in revived:
            findings.wrong.append(f"{saga}: {step} was undone before {dependent}, whose undo had not failed")
