"""One saga's life in a hostile world, and the laws after every decision.

The world plays everybody but the kernel: the owner that performs work, the store that refuses the replies of earlier
owners, the participants, the operators, and what goes wrong. When its tape is spent it turns fair: all work ends,
nothing is lost any more, and then the saga must come to an end, or to a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

from saga_orchestrator.definition.graph import Graph, Node, StepKind

from .dags import random_graph, relisted
from .happenings import HAPPENINGS, HAPPENINGS_WITH_PAUSES, operator_orders
from .ledger import Flight, Key, Ledger
from .tape import Tape

START = datetime(2024, 2, 29, 12, tzinfo=UTC)


class End(NamedTuple):
    """How a piece of work ends: well, or with an error that says whether to try again and whether it acted."""

    name: str
    retryable: bool = True
    in_doubt: bool = False


class Mood(NamedTuple):
    """How the work of one world tends to end."""

    steps: tuple[End, ...]
    reads: tuple[End, ...]
    undos: tuple[End, ...]


FINE = End("fine")
LATER, NEVER = End("later"), End("never", retryable=False)
PERHAPS, PERHAPS_NEVER = End("perhaps", in_doubt=True), End("perhaps never", retryable=False, in_doubt=True)
MIXED = (FINE, FINE, LATER, PERHAPS, NEVER, PERHAPS_NEVER)
LUCKY = (FINE, FINE, FINE, FINE, FINE, PERHAPS, NEVER, PERHAPS_NEVER)
MOODS = (
    Mood(LUCKY, LUCKY, LUCKY),
    Mood(MIXED, MIXED, MIXED),
    Mood(LUCKY, (FINE, NEVER), LUCKY),
    Mood(LUCKY, LUCKY, (FINE, NEVER, LATER, PERHAPS)),
)


class LawBrokenError(AssertionError):
    """The kernel did what it must never do."""


class World:
    """Everything around one saga. `run` ends quietly, or raises what law was broken, with the story so far."""

    def __init__(self, kernel: SimpleNamespace, tape: Tape) -> None:
        self.k = kernel
        self.tape = tape
        self.definition = random_graph(tape)
        self.twin_graph = relisted(self.definition, tape)
        self.mood = tape.pick(MOODS)
        self.now = START
        deadline = self.definition.deadline
        ends = None if deadline is None else START + deadline
        self.state = self.twin = kernel.State("saga", deadline=ends)
        self.owner = 0
        self.crashes = 0
        self.flights: list[Flight] = []
        self.said: list[Any] = []
        self.ledger = Ledger()
        self.story: list[str] = []

    def run(self) -> None:
        """Live through the whole tape, then fairly to the end."""
        self.happen(self.k.Claimed())
        turns = 0
        happenings = HAPPENINGS_WITH_PAUSES if self.tape.is_of_pauses else HAPPENINGS
        while not self.tape.is_spent and turns < 80:
            turns += 1
            happening = operator_orders if self.is_at_rest() and self.tape.happens(2) else self.tape.pick(happenings)
            happening(self)
        for _ in range(40 * len(self.graph.nodes) + 40):
            if self.is_at_rest():
                return
            self.go_on_fairly()
        self.blame("a saga driven fairly comes to an end, or to a person")

    @property
    def graph(self) -> Graph:
        """The saga's steps, as far as they are known by now."""
        return self.definition.unfolded(self.state.fans)

    @property
    def status(self) -> Any:
        return self.k.status_of(self.definition, self.state)

    def node(self, step_id: str) -> Node:
        """What the kernel knows of a step, also of one for an item of a list that is made anew."""
        whole = self.definition.unfolded(dict.fromkeys(self.definition.fans, 3))
        return self.graph.nodes.get(step_id) or whole.nodes[step_id]

    def key(self, step_id: str) -> Key:
        """The key of what the step does now."""
        return step_id, self.state.spent.get(step_id, 0)

    def is_at_rest(self) -> bool:
        return self.status.is_terminal or self.status is self.k.SagaStatus.STUCK

    # --- events ------------------------------------------------------------------------------------------------------

    def happen(self, event: Any) -> Any:
        """Let the kernel decide, check everything that must hold, and begin the work that it orders."""
        before = self.state
        try:
            decision = self.k.decide(self.definition, before, event, now=self.now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a law that was broken
            self.blame(f"a decision never raises: {error!r} for {event}")
        self.story.append(f"{self.now:%H:%M:%S} {event} -> {decision.verdict} {self.k.encode(decision.state)}")
        self.state = decision.state
        for broken in self.k.broken_by_move(self.graph, before, event, decision):
            self.blame(broken)
        self.check_twin(event, decision)
        self.check_lateness(before, event, decision)
        if decision.verdict is self.k.Verdict.APPLIED:
            self.check_fixed_point()
        self.check_codec()
        self.count_crashes(before, event, decision)
        self.flights.extend(Flight(work, self.owner, self.key(work.step_id)) for work in decision.work)
        for broken in self.falsehoods():
            self.blame(broken)
        return decision

    def change_owner(self, event: Any) -> Any:
        """Somebody else has the saga: what he knows is what the row says, and the replies of others are refused."""
        self.owner += 1
        self.said.clear()
        self.state = self.k.decode(self.k.encode(self.state), key=self.state.key)
        return self.happen(event)

    def tell(self, event: Any) -> Any:
        """Bring an event from outside; if it wakes a saga that nobody owns, it brings an owner with it."""
        if not self.k.outstanding(self.state):
            self.owner += 1
            self.said.clear()
        return self.happen(event)

    def reply(self, event: Any) -> None:
        self.said.append(event)
        self.happen(event)

    def perform(self, flight: Flight) -> None:
        """Let work end in one way or another, and tell the saga."""
        self.flights.remove(flight)
        work = flight.work
        if isinstance(work, self.k.Execute):
            self.execute(flight, work.step_id, work.attempt)
        elif isinstance(work, self.k.Probe):
            self.probe(work.step_id, work.attempt)
        elif isinstance(work, self.k.Collect):
            self.collect(work.step_id, work.attempt)
        else:
            self.compensate(flight)

    def execute(self, flight: Flight, step_id: str, attempt: int) -> None:
        if self.notes(flight):
            return
        if self.asks(flight) and self.is_asked_well(flight):
            self.ask(step_id, attempt)
            return
        node = self.node(step_id)
        end = self.tape.pick(self.mood.reads if node.kind is StepKind.READ_ONLY else self.mood.steps)
        if node.transactional:
            self.execute_once(flight, end)
            return
        acts = self.tape.happens(2) if end.in_doubt else end is FINE or flight.acted
        if acts and self.ledger.act(flight) and not end.in_doubt:
            chosen = self.tape.pick(("x", "y", "z", None)) if step_id in self.graph.choices else None
            items = self.tape.pick((2, 0, 1, 3)) if step_id in self.graph.fans else None
            self.reply(self.k.Returned(step_id, attempt, "{}", '{"n":1}', chosen=chosen, items=items))
            return
        pause = self.tape.pick((None, None, timedelta(0), timedelta(seconds=50), timedelta.max))
        self.reply(self.k.Raised(step_id, attempt, "boom", end.retryable, end.in_doubt, pause))

    def execute_once(self, flight: Flight, end: End) -> None:
        """Let work end whose effect is committed with its record: if the reply is not wanted, it has had none."""
        step_id, attempt = flight.work.step_id, flight.work.attempt
        if self.tape.happens_aside(6):
            self.end_transaction(flight)
            return
        reply = self.k.Returned(step_id, attempt, "{}", '{"n":1}')
        would_be = self.k.decide(self.graph, self.state, reply, now=self.now)
        if end is not FINE:
            self.reply(self.k.Raised(step_id, attempt, "boom", end.retryable))
        elif would_be.verdict is self.k.Verdict.APPLIED:
            self.ledger.standing.add(flight.key)
            self.reply(reply)

    def end_transaction(self, flight: Flight) -> None:
        """Let a step commit by itself, or roll back: its effect stands, or not, and it is not to be made again."""
        told = self.k.Raised(flight.work.step_id, flight.work.attempt, "ended", retryable=False, in_doubt=True)
        would_be = self.k.decide(self.graph, self.state, told, now=self.now)
        if would_be.verdict is self.k.Verdict.APPLIED and self.tape.happens_aside(2):
            self.ledger.standing.add(flight.key)
        self.reply(told)

    def notes(self, flight: Flight) -> bool:
        """Let work do a part, and note it; then it goes on. Return whether it did."""
        step_id, is_undo = flight.work.step_id, isinstance(flight.work, self.k.Compensate)
        if not self.tape.is_of_notes or self.node(step_id).transactional or not self.tape.happens(3):
            return False
        if not is_undo and not self.ledger.act(flight):
            return False
        self.flights.append(flight)
        self.reply(self.k.Noted(step_id, flight.work.attempt, "{}", is_undo))
        return True

    def asks(self, flight: Flight) -> bool:
        """Return whether this attempt asks for an event: the seldomer, the more it has heard."""
        is_one_way = self.node(flight.work.step_id).transactional
        return self.tape.is_of_waits and not is_one_way and self.tape.happens(2 + 2 * flight.work.heard)

    def is_asked_well(self, flight: Flight) -> bool:
        """Let the question be the step's effect, if it is one that can be undone or never is; else it must have none.

        Return whether it could be asked.
        """
        node = self.node(flight.work.step_id)
        is_effect = node.undoable or node.kind.is_final
        return self.ledger.act(flight) if is_effect else not flight.acted

    def ask(self, step_id: str, attempt: int) -> None:
        types = self.tape.pick((("go",), ("go", "stop"), ("stop",), ()))
        correlation = self.tape.pick((None, "here", "there"))
        lasts = timedelta(seconds=50)
        timeout, until = self.tape.pick(((None, None), (lasts, None), (None, self.now + lasts)))
        timeout = lasts if not types and until is None else timeout
        asked = self.k.Asked(step_id, attempt, types, correlation, timeout, until, self.tape.happens(2), "{}", "{}")
        self.reply(asked)

    def collect(self, step_id: str, attempt: int) -> None:
        """Find what had come before the step asked, or nothing."""
        if self.tape.happens(3):
            self.send()
        else:
            self.reply(self.k.Collected(step_id, attempt))

    def send(self, fair: bool = False) -> Any:
        """Send an event; a fair one is for somebody who waits."""
        waits = [(i, s) for i, s in self.k.waits(self.state) if s.types]
        if waits and (fair or not self.tape.happens(4)):
            step_id, status = self.tape.pick(waits)
            kind, correlation = self.tape.pick(status.types), status.correlation
            return self.tell(self.k.Signalled(kind, correlation, "{}", self.tape.pick((None, step_id))))
        kind, correlation = self.tape.pick(("go", "stop", "never")), self.tape.pick((None, "here", "there"))
        return self.tell(self.k.Signalled(kind, correlation, "{}"))

    def probe(self, step_id: str, attempt: int) -> None:
        if self.tape.happens(3):
            outcome = self.k.ProbeOutcome.UNKNOWN
        elif self.key(step_id) in self.ledger.standing:
            outcome = self.k.ProbeOutcome.DONE
        else:
            outcome = self.k.ProbeOutcome.NOT_DONE
            self.forget(step_id)
        self.reply(self.k.Probed(step_id, attempt, outcome, output="{}"))

    def compensate(self, flight: Flight) -> None:
        step_id, attempt = flight.work.step_id, flight.work.attempt
        if self.notes(flight):
            return
        if self.asks(flight):
            self.ask(step_id, attempt)
            return
        end = self.tape.pick(self.mood.undos)
        is_once = self.node(step_id).transactional
        if end is FINE or (end.in_doubt and not is_once and self.tape.happens(2)):
            self.ledger.undo(flight.key)
        if end is FINE:
            self.ledger.undone = True
            self.reply(self.k.Compensated(step_id, attempt))
        else:
            self.reply(self.k.CompensationRaised(step_id, attempt, "stays", end.retryable, end.in_doubt))

    def forget(self, step_id: str) -> None:
        """Nothing will come any more of what was ever asked of the step."""
        for flight in self.flights:
            flight.void = flight.void or (flight.work.step_id == step_id and isinstance(flight.work, self.k.Execute))

    def wake(self) -> None:
        """Let a new owner find the saga, as `run_due` does when its timer is due."""
        self.change_owner(self.k.Claimed())

    def go_on_fairly(self) -> None:
        """End one piece of work, or else wait for the timer."""
        wanted = self.k.outstanding(self.state)
        mine = [flight for flight in self.flights if flight.owner == self.owner and flight.work in wanted]
        if mine:
            self.perform(self.tape.pick(mine))
            return
        if self.state.paused:
            self.tell(self.k.ResumeOrdered())
            return
        due = self.k.wake_at(self.state)
        if due is None and any(status.types for _, status in self.k.waits(self.state)):
            self.send(fair=True)
            return
        if due is None:
            self.blame("an active saga has somebody who works for it, or a timer")
        self.now = max(self.now, due)
        self.wake()

    # --- what must hold ----------------------------------------------------------------------------------------------

    def blame(self, law: str) -> NoReturn:
        raise LawBrokenError("\n".join([law, f"{self.definition}", *self.story]))

    def check_twin(self, event: Any, decision: Any) -> None:
        """The order in which steps are listed means nothing."""
        twin = self.k.decide(self.twin_graph, self.twin, event, now=self.now)
        self.twin = twin.state
        if (twin.state, twin.verdict, set(twin.work)) != (decision.state, decision.verdict, set(decision.work)):
            self.blame("the same saga with its steps listed in another order goes the same way")

    def check_fixed_point(self) -> None:
        """Looking at every step finds no more than looking at the neighbours of what moved."""
        draft = self.k.Draft(self.graph, self.state, self.now)
        draft.touched.extend(self.graph.nodes)
        self.k.settle(draft)
        if (draft.open, draft.done, draft.course) != (self.state.open, self.state.done, self.state.course):
            self.blame("a decision leaves nothing that could move by itself")

    def check_lateness(self, before: Any, event: Any, decision: Any) -> None:
        """An event that comes when the time of its wait is up comes too late."""
        if isinstance(event, self.k.Signalled) and decision.verdict is self.k.Verdict.APPLIED:
            after = decision.state
            over = [i for i, status in before.open.items() if self.k.is_up(status, self.now)]
            if any(getattr(after.of(i), "heard", 0) > before.open[i].heard for i in over):
                self.blame("no event ends a wait whose time is up")

    def check_codec(self) -> None:
        text = self.k.encode(self.state)
        try:
            restored = self.k.decode(text, key=self.state.key)
        except self.k.UnreadableStateError as error:
            self.blame(f"what is stored can be read: {error!r}")
        if restored != self.state or self.k.encode(restored) != text:
            self.blame("what is stored is what was decided")

    def count_crashes(self, before: Any, event: Any, decision: Any) -> None:
        """A crash loop ends in quarantine, whatever else happens in it that brings nothing forward."""
        if isinstance(event, self.k.Claimed) and event.crashed and self.k.is_live(before) and not before.quarantined:
            self.crashes += 1
        elif decision.verdict is self.k.Verdict.APPLIED and not isinstance(event, self.k.Claimed | self.k.Ticked):
            self.crashes = (
                self.crashes if isinstance(event, self.k.Probed) and self.is_the_same_again(before, event) else 0
            )
        if self.crashes > self.graph.max_recoveries and not self.state.quarantined:
            self.blame("a saga that loses its owners without getting anywhere is quarantined")

    def is_the_same_again(self, before: Any, event: Any) -> bool:
        """Return whether a probe only led to what was lost being run once more."""
        asked, after = before.of(event.step_id), self.state.of(event.step_id)
        is_run_again = isinstance(after, self.k.Running) and before.rewind is None
        return getattr(asked, "lost", False) and is_run_again

    def check_timers(self) -> None:
        """What is due when time has passed is done; what that itself makes due, a moment later."""
        self.happen(self.k.Ticked())
        due = self.k.wake_at(self.state)
        if due is not None and due <= self.now:
            self.blame("no timer is left in the past")

    def falsehoods(self) -> Iterator[str]:
        """Yield what the saga says that the ledger knows better."""
        k, ledger, status = self.k, self.ledger, self.status
        for step_id, node in self.graph.nodes.items():
            step, now = self.state.of(step_id), self.key(step_id) in ledger.standing - ledger.waived
            stands = now if node.nothing_to_undo else ledger.stands(step_id)
            if stands and self.denies(step):
                yield f"{step_id} is said not to stand, and stands"
            if not stands and isinstance(step, k.Succeeded | k.Skipped) and step != k.Skipped():
                yield f"{step_id} is said to stand, and does not"
            unanswered = stands and not node.nothing_to_undo
            if unanswered and status is k.SagaStatus.COMPENSATED:
                yield f"it is said to be COMPENSATED, and {step_id} stands"
            tells = self.state.course is not k.Course.FORWARD or isinstance(step, k.Failed)
            tells = tells and (self.state.rewind is None or step_id in self.graph.part(self.state.rewind.to))
            if unanswered and tells and step_id not in k.residue(self.definition, self.state):
                yield f"{step_id} stands, and is missing in the residue"
        if status is k.SagaStatus.COMPENSATED and not ledger.undone:
            yield "it is said to be COMPENSATED, and nothing was undone"

    def denies(self, step: Any) -> bool:
        k = self.k
        never = (k.Pending(), k.Omitted(), k.Skipped())
        return (
            step in never
            or isinstance(step, k.Undone)
            or (isinstance(step, k.Failed | k.Retrying | k.Asking | k.Waiting) and not step.tainted)
        )
