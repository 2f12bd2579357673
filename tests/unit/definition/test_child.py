"""What a saga's author says of children, and what the step that has one does by how its child stands."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, RootModel

from saga_orchestrator import (
    Event,
    OutcomeUnknown,
    PermanentError,
    SagaBuilder,
    SagaDefinitionError,
    StepContext,
    StepDefinition,
    StepKind,
    WaitFor,
)
from saga_orchestrator.definition.child import ENDED, Child, ChildKey, Kin, StartedSaga
from saga_orchestrator.definition.parts import SagaInput

ID = uuid4()
KEY = ChildKey("trip", "saga/trip/execute")
WAIT = WaitFor(ENDED, correlation_id=str(ID), on_timeout="resume")
AGAIN = WaitFor(ENDED, correlation_id=str(ID), timeout=timedelta(minutes=1), on_timeout="resume")
OVER: Event[Any] = Event(type=ENDED, payload=None)
LATE: Event[Any] = Event(type="saga.timed_out", payload=None)


class Ticket(BaseModel):
    seat: str


class Kept:
    """Children of which one stands as it is told; it notes what it is asked for."""

    def __init__(self, child: Child | None) -> None:
        self.child = child
        self.asked: list[Any] = []

    async def begin(self, ctx: StepContext, child: ChildKey, initial_data: Any, *, detached: bool) -> UUID:
        self.asked.append(("begin", child, initial_data, detached))
        return ID

    async def look(self, child: ChildKey) -> Child | None:
        self.asked.append(("look", child))
        return self.child

    async def undo(self, child: ChildKey) -> Child | None:
        self.asked.append(("undo", child))
        return self.child


def added(**said: Any) -> StepDefinition:
    """Return the step of a saga that does nothing but have a child."""
    builder = SagaBuilder()
    builder.add_child("trip", input_map=lambda ctx: {"to": "Rome"}, step_id="trip", **said)
    return builder.build().step("trip")


def stands(status: str, **facts: Any) -> Child:
    return Child(ID, status, **{"is_over": True, **facts})


def context(children: Kept, phase: Any = "execute", failures: int = 0) -> StepContext:
    facts = {"saga_name": "s", "step_id": "trip", "aggregation_id": "a", "trace_id": "t", "idempotency_key": "k"}
    return StepContext(saga_id=uuid4(), attempt=1, phase=phase, _kin=Kin(children, KEY.key, failures), **facts)


INPUT = SagaInput({"to": "Rome"})
COMPLETED = stands("COMPLETED", output={"seat": "1A"}, standing=("book",))
COMPENSATED = stands("COMPENSATED", error="no seat")
FAILED = stands("FAILED", error="no seat")
RESIDUE = stands("FAILED", error="no seat", standing=("book",))
STUCK = stands("STUCK", is_over=False)
FOREIGN = stands("COMPLETED", is_over=False, is_known=False)


class TestAdding:
    def test_the_output_is_of_the_model_that_is_named(self) -> None:
        """Without one it is plain data, in `.root`; the input is whatever `input_map` makes."""
        assert added(output_model=Ticket).output_model is Ticket
        assert added().output_model is RootModel[Any]
        assert added().make_input(None) == INPUT

    def test_it_is_undone_unless_that_is_denied(self) -> None:
        """By `compensation=None`, by a kind that is never undone, or because it is detached."""
        assert added().node.undoable
        assert added(kind="COMPENSATABLE").node.undoable
        assert not added(compensation=None).node.undoable
        assert added(compensation=None).node.nothing_to_undo
        assert not added(kind=StepKind.PIVOT).node.undoable
        assert added(detached=True).node.nothing_to_undo
        assert not added(detached=True, kind=StepKind.PIVOT).node.nothing_to_undo

    def test_only_the_start_is_made_in_a_transaction(self) -> None:
        """The rest looks, and gives orders, which needs connections of its own."""
        for step in (added(), added(detached=True)):
            assert (step.node.transactional, step.begins_only) == (True, True)
            assert not step.needs_session

    def test_the_diagram_shows_it(self) -> None:
        """By what it is."""
        builder = SagaBuilder()
        builder.add_child("trip", input_map=lambda ctx: {}, step_id="trip")
        builder.add_child("bill", input_map=lambda ctx: {}, step_id="bill", detached=True)
        drawn = builder.build().to_mermaid()
        assert "ChildSaga" in drawn
        assert "DetachedSaga" in drawn

    @pytest.mark.parametrize(
        ("name", "said", "problem"),
        [
            ("", {}, "name of a child saga"),
            (7, {}, "name of a child saga"),
            ("trip", {"detached": True, "output_model": Ticket}, "drop output_model"),
            ("trip", {"input_map": 7}, "must be a plain function"),
            ("trip", {"step_id": "a/b"}, "no '/'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, name: Any, said: Any, problem: str) -> None:
        """When it is added."""
        with pytest.raises(SagaDefinitionError, match=problem):
            SagaBuilder().add_child(name, **{"input_map": lambda ctx: {}, **said})


class TestGoingForward:
    async def test_it_starts_its_child_and_waits(self) -> None:
        """For the end of just that one."""
        kept = Kept(None)
        assert await added().step.execute(INPUT, context(kept)) == WAIT
        assert kept.asked == [("begin", KEY, {"to": "Rome"}, False)]

    async def test_a_detached_one_returns_the_childs_id(self) -> None:
        """At once."""
        kept = Kept(None)
        assert await added(detached=True).step.execute(INPUT, context(kept)) == StartedSaga(ID)
        assert kept.asked == [("begin", KEY, {"to": "Rome"}, True)]

    async def test_it_returns_what_the_child_has_come_to(self) -> None:
        """As the model that it is to be."""
        step = added(output_model=Ticket).step
        assert await step.on_event(INPUT, OVER, context(Kept(COMPLETED))) == Ticket(seat="1A")

    @pytest.mark.parametrize(("child", "wait"), [(STUCK, WAIT), (FOREIGN, AGAIN)], ids=["stuck", "foreign"])
    async def test_a_child_that_is_not_over_is_waited_for(self, child: Child, wait: WaitFor) -> None:
        """One that this process does not know is looked at again by another."""
        assert await added().step.on_event(INPUT, OVER, context(Kept(child))) == wait

    @pytest.mark.parametrize(
        ("child", "error", "says"),
        [
            (COMPENSATED, PermanentError, "is COMPENSATED: no seat"),
            (FAILED, PermanentError, "is FAILED: no seat$"),
            (RESIDUE, OutcomeUnknown, "What stands: book"),
            (stands("COMPLETED", output={}), PermanentError, "does not fit Ticket: seat"),
            (None, PermanentError, "is gone"),
        ],
    )
    async def test_a_child_that_has_not_completed_fails_it(
        self, child: Child | None, error: type[Exception], says: str
    ) -> None:
        """In doubt if something of the child stands."""
        with pytest.raises(error, match=says):
            await added(output_model=Ticket).step.on_event(INPUT, OVER, context(Kept(child)))


class TestGoingBack:
    @pytest.mark.parametrize("child", [None, COMPENSATED, FAILED], ids=["none", "compensated", "failed"])
    async def test_a_child_of_which_nothing_stands_is_undone(self, child: Child | None) -> None:
        """Whatever it is called."""
        kept = Kept(child)
        assert await added().step.compensate(INPUT, None, context(kept, "compensate")) is None
        assert kept.asked == [("undo", KEY)]

    async def test_a_child_on_its_way_back_is_waited_for(self) -> None:
        """And only looked at when it has said something: it has its order."""
        kept = Kept(STUCK)
        assert await added().step.compensate(INPUT, None, context(kept, "compensate")) == WAIT
        assert await added().step.on_event(INPUT, OVER, context(kept, "compensate")) == WAIT
        assert [word for word, _ in kept.asked] == ["undo", "look"]

    async def test_a_child_that_could_not_be_told_is_told_later(self) -> None:
        """By a process that knows it."""
        kept = Kept(FOREIGN)
        assert await added().step.compensate(INPUT, None, context(kept, "compensate")) == AGAIN
        assert await added().step.on_event(INPUT, LATE, context(kept, "compensate")) == AGAIN
        assert [word for word, _ in kept.asked] == ["undo", "undo"]

    async def test_a_child_is_told_again_when_its_undo_is_tried_again(self) -> None:
        """As an operator orders who has seen what stands."""
        kept = Kept(STUCK)
        assert await added().step.on_event(INPUT, OVER, context(kept, "compensate", 1)) == WAIT
        assert [word for word, _ in kept.asked] == ["undo"]

    @pytest.mark.parametrize("child", [COMPLETED, RESIDUE], ids=["completed", "failed"])
    async def test_what_stands_of_a_child_is_not_undone(self, child: Child) -> None:
        """It says what."""
        with pytest.raises(PermanentError, match="What stands: book"):
            await added().step.on_event(INPUT, OVER, context(Kept(child), "compensate"))
