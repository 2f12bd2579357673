"""What each event does to the steps that it addresses, and what follows: a table, to be read as the specification.

A row says: in this saga, in this state, this event leads to this state, orders this work, and leaves these history
rows.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import pytest

from saga_orchestrator.definition.graph import Graph
from saga_orchestrator.definition.retry import ExponentialRetry
from saga_orchestrator.kernel.effects import Compensate, Execute, Probe, Verdict, Work
from saga_orchestrator.kernel.events import (
    Claimed,
    Compensated,
    CompensationRaised,
    Event,
    Notified,
    Probed,
    ProbeOutcome,
    Raised,
    Returned,
    Ticked,
)
from saga_orchestrator.kernel.laws import broken_by_move
from saga_orchestrator.kernel.state import State
from saga_orchestrator.kernel.step_status import Failed, Pending, Probing, Retrying, Running, Skipped, Succeeded
from saga_orchestrator.kernel.transition import decide
from saga_orchestrator.kernel.undo_status import Passed, UndoFailed, Undoing, Undone, UndoRetrying, Waived

from .sagas import (
    AT_ONCE,
    LATER,
    NOW,
    PAUSE,
    SECOND,
    TWICE,
    back,
    halted,
    pivot,
    read,
    retriable,
    state,
    step,
)


class Row(NamedTuple):
    """One line of the specification."""

    says: str
    graph: Graph
    before: State
    event: Event
    after: State
    work: tuple[Work, ...] = ()
    history: tuple[str, ...] = ()


ONE = Graph.of(step("a"))
CHAIN = Graph.of(step("a"), step("b", "a"))
FORK = Graph.of(step("a"), step("b", "a"), step("c", "a"))
SIDE_BY_SIDE = Graph.of(step("a"), step("b"))
RETRIED = Graph.of(step("a", retry=TWICE))
AGAIN_AT_ONCE = Graph.of(step("a", retry=AT_ONCE))
TIMED = Graph.of(step("a", timeout=PAUSE, retry=TWICE, compensation_timeout=PAUSE, undo_without_output=True))
PROBED = Graph.of(step("a", probes=True, retry=TWICE))
WITHOUT_OUTPUT = Graph.of(step("a", undo_without_output=True))
UNDO_RETRIED = Graph.of(step("a", compensation_retry=TWICE))
UNDO_AT_ONCE = Graph.of(step("a", compensation_retry=AT_ONCE))
WITH_PIVOT = Graph.of(step("a"), pivot("p", "a", retry=TWICE), retriable("r", "p"))
BESIDE_PIVOT = Graph.of(step("a"), pivot("p", "a", retry=AT_ONCE), read("q", "a"), read("s", "a"), read("t", "s"))
ONLY_FORWARD = Graph.of(step("a"), step("b"), compensate_on_failure=False)
ONE_CRASH = Graph.of(step("a", retry=TWICE), step("b"), max_recoveries=1)

FORWARD = [
    Row("a claimed newborn starts its roots", FORK, state(), Claimed(), state(a=Running()), (Execute("a", 1),)),
    Row(
        "steps that wait for nothing start together",
        SIDE_BY_SIDE,
        state(),
        Claimed(),
        state(a=Running(), b=Running()),
        (Execute("a", 1), Execute("b", 1)),
    ),
    Row(
        "a step that returned has acted, and what comes after it starts",
        FORK,
        state(a=Running()),
        Returned("a", 1),
        state(a=Succeeded(), b=Running(), c=Running()),
        (Execute("b", 1), Execute("c", 1)),
        ("EXECUTE SUCCESS a",),
    ),
    Row(
        "a step waits for all that it comes after",
        Graph.of(step("a"), step("b"), step("c", "a", "b")),
        state(a=Running(), b=Running()),
        Returned("a", 1),
        state(a=Succeeded(), b=Running()),
        (),
        ("EXECUTE SUCCESS a",),
    ),
    Row(
        "a timeout is counted from the start",
        TIMED,
        state(),
        Claimed(),
        state(a=Running(1, 0, LATER)),
        (Execute("a", 1),),
    ),
    Row(
        "a timeout without end is kept for a century",
        Graph.of(step("a", timeout=timedelta.max)),
        state(),
        Claimed(),
        state(a=Running(1, 0, NOW + timedelta(days=36_500))),
        (Execute("a", 1),),
    ),
]

FAILURES = [
    Row(
        "a failed attempt is tried again after its pause",
        RETRIED,
        state(a=Running()),
        Raised("a", 1),
        state(a=Retrying(1, 1, LATER)),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "the error may ask for another pause",
        RETRIED,
        state(a=Running()),
        Raised("a", 1, delay=SECOND),
        state(a=Retrying(1, 1, NOW + SECOND)),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "a pause without end is kept for a century",
        RETRIED,
        state(a=Running()),
        Raised("a", 1, delay=timedelta.max),
        state(a=Retrying(1, 1, NOW + timedelta(days=36_500))),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "no pause, no waiting",
        AGAIN_AT_ONCE,
        state(a=Running()),
        Raised("a", 1),
        state(a=Running(2, 1)),
        (Execute("a", 2),),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "max_attempts counts the first attempt too, and a step that raised has not acted",
        RETRIED,
        state(a=Running(2, 1)),
        Raised("a", 2),
        back(a=Failed(2)),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "an error may say that trying again is useless",
        RETRIED,
        state(a=Running()),
        Raised("a", 1, retryable=False),
        back(a=Failed()),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "doubt taints the step",
        RETRIED,
        state(a=Running()),
        Raised("a", 1, in_doubt=True),
        state(a=Retrying(1, 1, LATER, tainted=True)),
        (),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "a clean failure does not remove the taint",
        RETRIED,
        state(a=Running(2, 1, tainted=True)),
        Raised("a", 2),
        back(a=UndoFailed(0, with_output=False)),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "what may have acted is undone without its output, where that is possible",
        WITHOUT_OUTPUT,
        state(a=Running()),
        Raised("a", 1, in_doubt=True),
        back(a=Undoing(with_output=False)),
        (Compensate("a", 1, with_output=False),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "what may have acted and cannot be undone without its output is residue",
        ONE,
        state(a=Running()),
        Raised("a", 1, in_doubt=True),
        back(a=UndoFailed(0, with_output=False)),
        (),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "doubt about a step without an effect is no doubt",
        Graph.of(read("a")),
        state(a=Running()),
        Raised("a", 1, in_doubt=True),
        back(a=Failed(tainted=True)),
        (),
        ("EXECUTE IN_DOUBT a",),
    ),
]

WAYS = [
    Row(
        "after a failure what has acted is undone",
        CHAIN,
        state(a=Succeeded(), b=Running()),
        Raised("b", 1),
        back(a=Undoing(), b=Failed()),
        (Compensate("a", 1),),
        ("EXECUTE ERROR b",),
    ),
    Row(
        "what only waited for another attempt gets none",
        Graph.of(step("a", retry=TWICE), step("b")),
        state(a=Retrying(1, 1, LATER), b=Running()),
        Raised("b", 1),
        back(a=Failed(), b=Failed()),
        (),
        ("EXECUTE ERROR b",),
    ),
    Row(
        "what is in flight is waited for, and what it came after waits with it",
        FORK,
        state(a=Succeeded(), b=Running(), c=Running()),
        Raised("b", 1),
        back(a=Succeeded(), b=Failed(), c=Running()),
        (),
        ("EXECUTE ERROR b",),
    ),
    Row(
        "what returns on the way back is undone",
        FORK,
        back(a=Succeeded(), b=Failed(), c=Running()),
        Returned("c", 1),
        back(a=Succeeded(), b=Failed(), c=Undoing()),
        (Compensate("c", 1),),
        ("EXECUTE SUCCESS c",),
    ),
    Row(
        "what fails on the way back is not tried again",
        Graph.of(step("a", retry=TWICE)),
        back(a=Running()),
        Raised("a", 1),
        back(a=Failed()),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "the author may want the effects of a failed saga left alone",
        ONLY_FORWARD,
        state(a=Succeeded(), b=Running()),
        Raised("b", 1),
        halted(a=Succeeded(), b=Failed()),
        (),
        ("EXECUTE ERROR b",),
    ),
    Row(
        "past the pivot there is only the way forward",
        WITH_PIVOT,
        state(a=Succeeded(), p=Succeeded(), r=Running()),
        Raised("r", 1),
        state(a=Succeeded(), p=Succeeded(), r=Failed()),
        (),
        ("EXECUTE ERROR r",),
    ),
    Row(
        "a pivot that failed cleanly is not past",
        WITH_PIVOT,
        state(a=Succeeded(), p=Running(2, 1)),
        Raised("p", 2),
        back(a=Undoing(), p=Failed(2)),
        (Compensate("a", 1),),
        ("EXECUTE ERROR p",),
    ),
    Row(
        "a pivot that may have acted is past",
        WITH_PIVOT,
        state(a=Succeeded(), p=Running(2, 1)),
        Raised("p", 2, in_doubt=True),
        state(a=Succeeded(), p=Failed(2, tainted=True)),
        (),
        ("EXECUTE IN_DOUBT p",),
    ),
    Row(
        "while a pivot is in flight a failure beside it waits for what becomes of it",
        BESIDE_PIVOT,
        state(a=Succeeded(), p=Running(), q=Running(), s=Running()),
        Raised("q", 1),
        state(a=Succeeded(), p=Running(), q=Failed(), s=Running()),
        (),
        ("EXECUTE ERROR q",),
    ),
    Row(
        "meanwhile nothing further starts",
        BESIDE_PIVOT,
        state(a=Succeeded(), p=Running(), q=Failed(), s=Running()),
        Returned("s", 1),
        state(a=Succeeded(), p=Running(), q=Failed(), s=Succeeded()),
        (),
        ("EXECUTE SUCCESS s",),
    ),
    Row(
        "when the pivot has acted, what was held back starts",
        BESIDE_PIVOT,
        state(a=Succeeded(), p=Running(), q=Failed(), s=Succeeded()),
        Returned("p", 1),
        state(a=Succeeded(), p=Succeeded(), q=Failed(), s=Succeeded(), t=Running()),
        (Execute("t", 1),),
        ("EXECUTE SUCCESS p",),
    ),
    Row(
        "when the pivot has failed, it is not tried again: the saga can still turn back",
        BESIDE_PIVOT,
        state(a=Succeeded(), p=Running(), q=Failed(), s=Succeeded()),
        Raised("p", 1),
        back(a=Undoing(), p=Failed(), q=Failed(), s=Passed()),
        (Compensate("a", 1),),
        ("EXECUTE ERROR p",),
    ),
    Row(
        "when the pivot may have acted, it is tried again",
        BESIDE_PIVOT,
        state(a=Succeeded(), p=Running(), q=Failed(), s=Running()),
        Raised("p", 1, in_doubt=True),
        state(a=Succeeded(), p=Running(2, 1, tainted=True), q=Failed(), s=Running()),
        (Execute("p", 2, tainted=True),),
        ("EXECUTE IN_DOUBT p",),
    ),
]

DONE, NOT_DONE, UNKNOWN = ProbeOutcome.DONE, ProbeOutcome.NOT_DONE, ProbeOutcome.UNKNOWN
PROBES = [
    Row(
        "an attempt in doubt is asked for",
        PROBED,
        state(a=Running()),
        Raised("a", 1, retryable=False, in_doubt=True),
        state(a=Probing(retryable=False)),
        (Probe("a", 1),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "it has acted after all",
        PROBED,
        state(a=Probing()),
        Probed("a", 1, DONE, output="{}"),
        state(a=Succeeded()),
        (),
        ("EXECUTE SUCCESS a",),
    ),
    Row(
        "it surely has not: it is tried again, without a taint",
        PROBED,
        state(a=Probing()),
        Probed("a", 1, NOT_DONE),
        state(a=Retrying(1, 1, LATER)),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "it surely has not, and its error said that trying again is useless",
        PROBED,
        state(a=Probing(retryable=False)),
        Probed("a", 1, NOT_DONE),
        back(a=Failed()),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "nobody knows: it is tried again, with a taint",
        PROBED,
        state(a=Probing()),
        Probed("a", 1, UNKNOWN),
        state(a=Retrying(1, 1, LATER, tainted=True)),
        (),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "an attempt that was lost and has not acted is run again, at no cost",
        PROBED,
        state(a=Probing(lost=True), recoveries=2),
        Probed("a", 1, NOT_DONE),
        state(a=Running(2), recoveries=2),
        (Execute("a", 2),),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "an attempt that was lost and may have acted is run again, at no cost",
        PROBED,
        state(a=Probing(lost=True)),
        Probed("a", 1, UNKNOWN),
        state(a=Running(2, tainted=True)),
        (Execute("a", 2, tainted=True),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "a lost attempt of a saga that turns back is not run again",
        PROBED,
        back(a=Probing(lost=True)),
        Probed("a", 1, NOT_DONE),
        back(a=Failed()),
        (),
        ("EXECUTE ERROR a",),
    ),
    Row(
        "nor is a lost pivot that surely has not acted, when a step beside it has failed",
        Graph.of(pivot("p", probes=True, retry=TWICE), read("q")),
        state(p=Probing(lost=True), q=Failed()),
        Probed("p", 1, NOT_DONE),
        back(p=Failed(), q=Failed()),
        (),
        ("EXECUTE ERROR p",),
    ),
    Row(
        "a lost pivot that may have acted is run again, whatever else has failed",
        Graph.of(pivot("p", probes=True, retry=TWICE), read("q")),
        state(p=Probing(lost=True), q=Failed()),
        Probed("p", 1, UNKNOWN),
        state(p=Running(2, tainted=True), q=Failed()),
        (Execute("p", 2, tainted=True),),
        ("EXECUTE IN_DOUBT p",),
    ),
]

UNDOING = [
    Row(
        "an undo that returned lets what comes before it be undone",
        CHAIN,
        back(a=Succeeded(), b=Undoing()),
        Compensated("b", 1),
        back(a=Undoing(), b=Undone()),
        (Compensate("a", 1),),
        ("COMPENSATE SUCCESS b",),
    ),
    Row(
        "a step is undone after all that comes after it",
        FORK,
        back(a=Succeeded(), b=Undoing(), c=Undoing()),
        Compensated("b", 1),
        back(a=Succeeded(), b=Undone(), c=Undoing()),
        (),
        ("COMPENSATE SUCCESS b",),
    ),
    Row(
        "branches are undone side by side",
        Graph.of(step("a"), step("b"), step("c")),
        state(a=Succeeded(), b=Succeeded(), c=Running()),
        Raised("c", 1),
        back(a=Undoing(), b=Undoing(), c=Failed()),
        (Compensate("b", 1), Compensate("a", 1)),
        ("EXECUTE ERROR c",),
    ),
    Row(
        "the rollback passes what has no effect",
        Graph.of(step("a"), read("b", "a"), step("c", "b")),
        state(a=Succeeded(), b=Succeeded(), c=Running()),
        Raised("c", 1),
        back(a=Undoing(), b=Passed(), c=Failed()),
        (Compensate("a", 1),),
        ("EXECUTE ERROR c",),
    ),
    Row(
        "what was skipped as not done is passed, what was done by hand is undone",
        Graph.of(step("a"), step("b"), step("c", "a", "b")),
        back(a=Skipped(), b=Skipped(acted=True), c=Undoing()),
        Compensated("c", 1),
        back(a=Passed(0, acted=False), b=Undoing(), c=Undone()),
        (Compensate("b", 1),),
        ("COMPENSATE SUCCESS c",),
    ),
    Row(
        "what was done by hand and has no effect is passed",
        Graph.of(read("a"), step("b", "a")),
        back(a=Skipped(acted=True), b=Undoing()),
        Compensated("b", 1),
        back(a=Passed(0), b=Undone()),
        (),
        ("COMPENSATE SUCCESS b",),
    ),
    Row(
        "a waived step is left alone, and so is what a waiver cannot speak for",
        Graph.of(step("a"), step("b", "a"), step("c", "b", on_undo_failure="stop"), step("d")),
        back(a=Succeeded(), b=Waived(), c=UndoFailed(1), d=Undoing()),
        Compensated("d", 1),
        back(a=Succeeded(), b=Waived(), c=UndoFailed(1), d=Undone()),
        (),
        ("COMPENSATE SUCCESS d",),
    ),
    Row(
        "what is to be undone again begins when all that comes after it is settled",
        CHAIN,
        back(a=UndoFailed(3, again=True), b=Undoing(2)),
        Compensated("b", 2),
        back(a=Undoing(4), b=Undone(2)),
        (Compensate("a", 4),),
        ("COMPENSATE SUCCESS b",),
    ),
    Row(
        "a failed undo is tried again after its pause",
        UNDO_RETRIED,
        back(a=Undoing()),
        CompensationRaised("a", 1),
        back(a=UndoRetrying(1, 1, LATER)),
        (),
        ("COMPENSATE ERROR a",),
    ),
    Row(
        "a failed undo may ask for another pause",
        UNDO_RETRIED,
        back(a=Undoing()),
        CompensationRaised("a", 1, in_doubt=True, delay=SECOND),
        back(a=UndoRetrying(1, 1, NOW + SECOND)),
        (),
        ("COMPENSATE IN_DOUBT a",),
    ),
    Row(
        "or need none",
        UNDO_AT_ONCE,
        back(a=Undoing()),
        CompensationRaised("a", 1),
        back(a=Undoing(2, 1)),
        (Compensate("a", 2),),
        ("COMPENSATE ERROR a",),
    ),
    Row(
        "an undo that failed for good stands in the residue",
        UNDO_RETRIED,
        back(a=Undoing(2, 1)),
        CompensationRaised("a", 2),
        back(a=UndoFailed(2)),
        (),
        ("COMPENSATE ERROR a",),
    ),
    Row(
        "an undo may say that trying again is useless",
        UNDO_RETRIED,
        back(a=Undoing(with_output=False)),
        CompensationRaised("a", 1, retryable=False),
        back(a=UndoFailed(1, with_output=False)),
        (),
        ("COMPENSATE ERROR a",),
    ),
    Row(
        "the rest goes on without it",
        CHAIN,
        back(a=Succeeded(), b=Undoing()),
        CompensationRaised("b", 1),
        back(a=Undoing(), b=UndoFailed(1)),
        (Compensate("a", 1),),
        ("COMPENSATE ERROR b",),
    ),
    Row(
        "or stops there, if its author wants that",
        Graph.of(step("a"), step("b", "a", on_undo_failure="stop")),
        back(a=Succeeded(), b=Undoing()),
        CompensationRaised("b", 1),
        back(a=Succeeded(), b=UndoFailed(1)),
        (),
        ("COMPENSATE ERROR b",),
    ),
    Row(
        "an effect without a compensation is residue",
        Graph.of(step("a", undoable=False), step("b")),
        state(a=Succeeded(), b=Running()),
        Raised("b", 1),
        back(a=UndoFailed(0), b=Failed()),
        (),
        ("EXECUTE ERROR b",),
    ),
]

TOO_LATE = [
    Row(
        "an attempt that was undone without its output, and returns after all, is undone with it",
        Graph.of(step("a"), step("b", undo_without_output=True)),
        back(a=Undoing(), b=Undone(1, with_output=False)),
        Returned("b", 1, output="{}"),
        back(a=Undoing(), b=Undoing(2)),
        (Compensate("b", 2),),
        ("EXECUTE SUCCESS b",),
    ),
    Row(
        "so is one that could not be undone for lack of its output",
        SIDE_BY_SIDE,
        back(a=Undoing(), b=UndoFailed(0, with_output=False)),
        Returned("b", 1, output="{}"),
        back(a=Undoing(), b=Undoing(1)),
        (Compensate("b", 1),),
        ("EXECUTE SUCCESS b",),
    ),
    Row(
        "and one whose undo without the output is under way",
        WITHOUT_OUTPUT,
        back(a=Undoing(2, 1, with_output=False)),
        Returned("a", 1, output="{}"),
        back(a=Undoing(3)),
        (Compensate("a", 3),),
        ("EXECUTE SUCCESS a",),
    ),
    Row(
        "and one whose undo waits for its next attempt",
        WITHOUT_OUTPUT,
        back(a=UndoRetrying(1, 1, LATER, with_output=False)),
        Returned("a", 1, output="{}"),
        back(a=Undoing(2)),
        (Compensate("a", 2),),
        ("EXECUTE SUCCESS a",),
    ),
]

TIME = [
    Row(
        "nothing is due before its time",
        RETRIED,
        state(a=Retrying(1, 1, LATER)),
        Ticked(),
        state(a=Retrying(1, 1, LATER)),
    ),
    Row(
        "a pause ends",
        RETRIED,
        state(a=Retrying(1, 1, NOW, tainted=True)),
        Ticked(),
        state(a=Running(2, 1, tainted=True)),
        (Execute("a", 2, tainted=True),),
    ),
    Row(
        "a pause before an undo ends",
        UNDO_RETRIED,
        back(a=UndoRetrying(1, 1, NOW)),
        Ticked(),
        back(a=Undoing(2, 1)),
        (Compensate("a", 2),),
    ),
    Row(
        "an attempt that ran out of time is in doubt",
        TIMED,
        state(a=Running(1, 0, NOW)),
        Ticked(),
        state(a=Retrying(1, 1, LATER, tainted=True)),
        (),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "an attempt that began late has its time all the same, and spares no other",
        Graph.of(step("a", timeout=PAUSE), step("b", timeout=PAUSE, retry=TWICE)),
        state(a=Running(1, 0, NOW), b=Running(1, 0, NOW)),
        Ticked(frozenset("a")),
        state(a=Running(1, 0, NOW), b=Retrying(1, 1, LATER, tainted=True)),
        (),
        ("EXECUTE IN_DOUBT b",),
    ),
    Row(
        "a probe that ran out of time knows nothing",
        TIMED,
        state(a=Probing(1, 0, NOW)),
        Ticked(),
        state(a=Retrying(1, 1, LATER, tainted=True)),
        (),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "an undo that ran out of time is in doubt, and is no undo",
        TIMED,
        back(a=Undoing(1, 0, NOW)),
        Ticked(),
        back(a=UndoFailed(1)),
        (),
        ("COMPENSATE IN_DOUBT a",),
    ),
    Row(
        "what is due when anything happens is due",
        Graph.of(step("a", retry=TWICE), step("b")),
        state(a=Retrying(1, 1, NOW), b=Running()),
        Returned("b", 1),
        state(a=Running(2, 1), b=Succeeded()),
        (Execute("a", 2),),
        ("EXECUTE SUCCESS b",),
    ),
    Row(
        "a notification ends every pause at once",
        RETRIED,
        state(a=Retrying(1, 1, LATER)),
        Notified("{}"),
        state(a=Running(2, 1)),
        (Execute("a", 2),),
        ("ORDER SUCCESS notify",),
    ),
    Row(
        "also before an undo",
        UNDO_RETRIED,
        back(a=UndoRetrying(1, 1, LATER)),
        Notified(),
        back(a=Undoing(2, 1)),
        (Compensate("a", 2),),
        ("ORDER SUCCESS notify",),
    ),
]

OWNERS = [
    Row(
        "a new owner runs again what was in flight, under the same attempt, in doubt, at no cost",
        RETRIED,
        state(a=Running(2, 1)),
        Claimed(),
        state(a=Running(2, 1, tainted=True)),
        (Execute("a", 2, tainted=True),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "or asks for it first, where that is possible",
        PROBED,
        state(a=Running(2, 1)),
        Claimed(),
        state(a=Probing(2, 1, lost=True)),
        (Probe("a", 2),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "a probe in flight is asked again",
        PROBED,
        state(a=Probing(2, 1, retryable=False)),
        Claimed(),
        state(a=Probing(2, 1, retryable=False)),
        (Probe("a", 2),),
    ),
    Row(
        "an undo in flight is run again, under the same attempt, at no cost",
        TIMED,
        back(a=Undoing(2, 0, NOW, with_output=False)),
        Claimed(),
        back(a=Undoing(2, 0, LATER, with_output=False)),
        (Compensate("a", 2, with_output=False),),
        ("COMPENSATE IN_DOUBT a",),
    ),
    Row(
        "what is due is due",
        RETRIED,
        state(a=Retrying(1, 1, NOW)),
        Claimed(),
        state(a=Running(2, 1)),
        (Execute("a", 2),),
    ),
    Row("what is not due waits", RETRIED, state(a=Retrying(1, 1, LATER)), Claimed(), state(a=Retrying(1, 1, LATER))),
    Row(
        "on the way back a lost attempt is run again only for an output that its undo needs",
        ONE,
        back(a=Running()),
        Claimed(),
        back(a=Running(tainted=True)),
        (Execute("a", 1, tainted=True),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "else it is undone",
        WITHOUT_OUTPUT,
        back(a=Running()),
        Claimed(),
        back(a=Undoing(with_output=False)),
        (Compensate("a", 1, with_output=False),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "or stands in the residue, where nothing can undo it",
        Graph.of(step("a", undoable=False)),
        back(a=Running()),
        Claimed(),
        back(a=UndoFailed(0, with_output=False)),
        (),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "a lost attempt of a saga whose effects are left alone is not run again",
        ONLY_FORWARD,
        halted(a=Failed(), b=Running()),
        Claimed(),
        halted(a=Failed(), b=Failed(tainted=True)),
        (),
        ("EXECUTE IN_DOUBT b",),
    ),
    Row(
        "a crash is counted",
        ONE_CRASH,
        state(a=Running(), b=Succeeded()),
        Claimed(crashed=True),
        state(a=Running(tainted=True), b=Succeeded(), recoveries=1),
        (Execute("a", 1, tainted=True),),
        ("EXECUTE IN_DOUBT a",),
    ),
    Row(
        "progress forgives crashes",
        ONE_CRASH,
        state(a=Running(), b=Running(), recoveries=1),
        Returned("b", 1),
        state(a=Running(), b=Succeeded()),
        (),
        ("EXECUTE SUCCESS b",),
    ),
    Row(
        "too many in a row end in quarantine, with everything as it was",
        ONE_CRASH,
        state(a=Running(), b=Succeeded(), recoveries=1),
        Claimed(crashed=True),
        state(a=Running(), b=Succeeded(), recoveries=2, quarantined=True),
        (),
        ("ORDER ERROR quarantine",),
    ),
    Row(
        "a crash in which nothing was in flight is nobody's fault",
        ONE_CRASH,
        state(a=Retrying(1, 1, LATER), recoveries=1),
        Claimed(crashed=True),
        state(a=Retrying(1, 1, LATER), recoveries=1),
    ),
    Row(
        "a quarantined saga goes on for no owner",
        ONE_CRASH,
        state(a=Running(), recoveries=2, quarantined=True),
        Claimed(crashed=True),
        state(a=Running(), recoveries=2, quarantined=True),
    ),
    Row(
        "nor for any time",
        TIMED,
        state(a=Running(1, 0, NOW), quarantined=True),
        Ticked(),
        state(a=Running(1, 0, NOW), quarantined=True),
    ),
]

ROWS = [*FORWARD, *FAILURES, *WAYS, *PROBES, *UNDOING, *TOO_LATE, *TIME, *OWNERS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
def test_an_event_that_fits_moves_the_saga(row: Row) -> None:
    """The state, the work and the history that follow from an event are these, and no law is broken."""
    decision = decide(row.graph, row.before, row.event, now=NOW)
    after, expected = decision.state, row.after
    assert (after.open, after.done) == (expected.open, expected.done)
    assert (after.course, after.recoveries, after.quarantined) == (
        expected.course,
        expected.recoveries,
        expected.quarantined,
    )
    assert decision.work == row.work
    assert tuple(f"{r.phase} {r.status} {r.step_id}" for r in decision.records) == row.history
    assert (decision.verdict, decision.reason) == (Verdict.APPLIED, "")
    assert list(broken_by_move(row.graph, row.before, row.event, decision)) == []


STALE, UNMATCHED = Verdict.STALE, Verdict.UNMATCHED
IGNORED = [
    ("of an earlier attempt", state(a=Running(2, 1)), Returned("a", 1), STALE),
    ("of an attempt that nobody began", state(a=Running()), Returned("a", 2), STALE),
    ("repeated", state(a=Succeeded()), Returned("a", 1), STALE),
    ("before the step began", state(), Returned("a", 1), STALE),
    ("a late failure", state(a=Running(2, 1)), Raised("a", 1), STALE),
    ("of an attempt that has been given up", state(a=Retrying(1, 1, LATER)), Returned("a", 1), STALE),
    ("a failure while the step is asked", state(a=Probing()), Raised("a", 1), STALE),
    ("of an earlier probe", state(a=Probing(2)), Probed("a", 1, DONE), STALE),
    ("of a probe that nobody waits for", state(a=Running()), Probed("a", 1, DONE), STALE),
    ("of an earlier undo", back(a=Undoing(2, 1)), Compensated("a", 1), STALE),
    ("a late failure of an undo", back(a=Undoing(2, 1)), CompensationRaised("a", 1), STALE),
    ("of an undo on the way forward", state(a=Running()), Compensated("a", 1), STALE),
    ("of a step whose output is known", back(a=Undoing()), Returned("a", 1), STALE),
    ("of a saga that is over", back(a=Undone(with_output=False)), Returned("a", 1), STALE),
    ("of a saga that is stuck", back(a=UndoFailed(0, with_output=False)), Returned("a", 1), STALE),
    ("in quarantine", state(a=Running(), quarantined=True), Returned("a", 1), STALE),
    ("of a step that is not in this saga", state(a=Running()), Returned("z", 1), UNMATCHED),
    ("a notification nobody waits for", state(a=Running()), Notified(), UNMATCHED),
    ("a notification in quarantine", state(a=Retrying(1, 1, LATER), quarantined=True), Notified(), UNMATCHED),
]


@pytest.mark.parametrize(("before", "event", "verdict"), [row[1:] for row in IGNORED], ids=[row[0] for row in IGNORED])
def test_an_event_that_does_not_fit_moves_nothing(before: State, event: Event, verdict: Verdict) -> None:
    """A late, repeated or foreign event gets a verdict, and leaves state, work and history alone."""
    decision = decide(Graph.of(step("a", undo_without_output=True)), before, event, now=NOW)
    assert decision.verdict is verdict
    assert decision.state is before
    assert (decision.work, decision.records) == ((), ())


def test_a_late_return_is_no_use_where_nothing_can_be_undone() -> None:
    """The output of a step without a compensation changes nothing any more."""
    graph = Graph.of(step("a", undoable=False), step("b"))
    before = back(a=UndoFailed(0, with_output=False), b=Undoing())
    assert decide(graph, before, Returned("a", 1), now=NOW).verdict is Verdict.STALE


def test_history_rows_carry_what_the_reply_said() -> None:
    """A row holds the attempt, its payloads as they came, its error and when it began; rows are numbered on."""
    graph = Graph.of(step("a", retry=TWICE))
    before = State("saga", {"a": Running()}, {}, recorded=7)
    row = decide(graph, before, Raised("a", 1, "boom", input="{}", started_at=NOW), now=LATER).records[0]
    assert (row.seq, row.step_id, row.attempt, row.input, row.output, row.error, row.started_at) == (
        7,
        "a",
        1,
        "{}",
        None,
        "boom",
        NOW,
    )
    after = decide(graph, before, Returned("a", 1, "{}", '{"n":1}', NOW), now=LATER)
    assert (after.records[0].output, after.state.recorded) == ('{"n":1}', 8)


def test_a_probe_without_words_is_still_recorded_with_a_reason() -> None:
    """The row of a probe that gave no error says what it found."""
    assert decide(PROBED, state(a=Probing()), Probed("a", 1, NOT_DONE), now=NOW).records[0].error == "probe: NOT_DONE"


def test_a_decision_leaves_the_state_that_it_was_made_on_alone() -> None:
    """States are values: deciding twice on the same one gives the same answer."""
    before = state(a=Running())
    first = decide(CHAIN, before, Returned("a", 1), now=NOW)
    assert decide(CHAIN, before, Returned("a", 1), now=NOW) == first
    assert before == state(a=Running())


def test_a_saga_without_steps_is_complete() -> None:
    """Nothing to do is done."""
    assert decide(Graph.of(), state(), Claimed(), now=NOW).work == ()


def test_jitter_comes_from_the_saga_and_the_step() -> None:
    """The same saga waits the same time in every replay; another one waits another time."""
    graph = Graph.of(step("a", retry=ExponentialRetry(3, PAUSE, jitter=0.5)))
    states = [State(key, {"a": Running()}) for key in ("one", "one", "two")]
    until = [decide(graph, before, Raised("a", 1), now=NOW).state.of("a").until for before in states]
    assert until[0] == until[1] != until[2]
    assert all(NOW + PAUSE / 2 <= moment <= LATER for moment in until)


def test_a_pending_step_is_one_never_heard_of() -> None:
    """A state names only steps that have left PENDING."""
    assert state().of("a") == Pending()
