"""What a step says that waits, and what a saga's author says of steps that only wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel, RootModel

from saga_orchestrator import BaseStep, Event, SagaBuilder, SagaDefinitionError, StepKind, TypeValidationError, WaitFor
from saga_orchestrator.definition.waiting import TIMED_OUT

HOUR = timedelta(hours=1)
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


class Question(BaseModel):
    to: str = ""


class Answer(BaseModel):
    yes: bool = True


def test_a_wait_for_an_event_fails_in_the_end_and_one_for_a_time_goes_on() -> None:
    """That is what one expects of each; the other has to be said."""
    assert WaitFor("answer", timeout=HOUR).on_timeout == "fail"
    assert WaitFor(timeout=HOUR).on_timeout == WaitFor("answer", on_timeout="resume").on_timeout == "resume"
    assert WaitFor("a", "b").event_types == ("a", "b")


BAD_WAITS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "nothing": ((), {}, "wait for ever"),
    "an empty type": (("",), {}, "event type"),
    "a number": ((7,), {}, "event type"),
    "a long type": (("x" * 256,), {}, "event type"),
    "a NUL": (("a\x00",), {}, "event type"),
    "half a surrogate": (("a\ud800",), {}, "event type"),
    "an empty correlation": (("a",), {"correlation_id": ""}, "correlation_id"),
    "seconds": (("a",), {"timeout": 5}, "timedelta"),
    "the past": (("a",), {"timeout": -HOUR}, "timedelta"),
    "a moment without a zone": (("a",), {"until": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001
    "the end of time, elsewhere": (("a",), {"until": datetime.max.replace(tzinfo=timezone(-HOUR))}, "no time in UTC"),
    "both": (("a",), {"timeout": HOUR, "until": MOMENT}, "not both"),
    "another end": (("a",), {"on_timeout": "retry"}, "'fail' or 'resume'"),
}


@pytest.mark.parametrize(("types", "said", "problem"), BAD_WAITS.values(), ids=BAD_WAITS)
def test_a_wait_that_makes_no_sense_is_refused(types: Any, said: Any, problem: str) -> None:
    """With what to say instead."""
    with pytest.raises(SagaDefinitionError, match=problem):
        WaitFor(*types, **said)


class Ask(BaseStep[Question, Answer]):
    async def execute(self, inp: Question) -> Answer | WaitFor:
        return WaitFor("answer")

    async def on_event(self, inp: Question, event: Event[Answer]) -> Answer:
        return event.payload


def test_a_step_that_waits_says_so() -> None:
    """Its output is what is left of its annotation, and its event's payload is a model."""
    shape = Ask._shape
    assert shape is not None
    assert (shape.output_model, shape.event_model, shape.hears) == (Answer, Answer, True)


def test_an_event_without_a_model_is_plain() -> None:
    """Whatever its payload is, it fits."""

    class Plain(BaseStep[Question, Answer]):
        async def execute(self, inp: Question) -> WaitFor | Answer:
            return WaitFor("answer")

        async def on_event(self, inp: Question, event: Event[Any]) -> Answer:
            return Answer()

    class Bare(Plain):
        async def on_event(self, inp: Question, event: Event) -> Answer:  # type: ignore[type-arg]
            return Answer()

    assert Plain._shape is not None
    assert Bare._shape is not None
    assert Plain._shape.event_model is Bare._shape.event_model is None


def test_an_event_of_a_model_can_be_made_by_hand() -> None:
    """As in a test of somebody's step; on Python 3.11 it raised a TypeError."""
    assert Event[Answer](type="answer", payload=Answer()) == Event(type="answer", payload=Answer())


def test_a_step_that_may_wait_needs_a_way_to_go_on() -> None:
    """Also if it is its compensation that waits."""
    with pytest.raises(TypeValidationError, match="on_event"):

        class Deaf(BaseStep[Question, Answer]):
            async def execute(self, inp: Question) -> Answer | WaitFor:
                return WaitFor("answer")

    with pytest.raises(TypeValidationError, match="on_event"):

        class DeafUndo(BaseStep[Question, Answer]):
            async def execute(self, inp: Question) -> Answer:
                return Answer()

            async def compensate(self, inp: Question, out: Answer) -> WaitFor | None:
                return WaitFor("answer")


def test_on_event_takes_an_input_and_an_event() -> None:
    """And perhaps a context."""
    with pytest.raises(TypeValidationError, match="on_event"):

        class Wrong(BaseStep[Question, Answer]):
            async def execute(self, inp: Question) -> Answer | WaitFor:
                return WaitFor("answer")

            async def on_event(self, inp: Question) -> Answer:  # type: ignore[override]
                return Answer()


async def test_the_base_says_that_there_is_nothing_to_go_on_with() -> None:
    """A step that never waits is never asked."""

    class Plain(BaseStep[Question, Answer]):
        async def execute(self, inp: Question) -> Answer:
            return Answer()

    with pytest.raises(NotImplementedError):
        await Plain().on_event(Question(), Event(type="answer", payload=None))


def test_an_event_step_only_reads_and_has_the_payload_for_its_output() -> None:
    """Without a model the payload is plain, in `.root`."""
    builder = SagaBuilder()
    typed = builder.add_event("answer", model=Answer, step_id="typed")
    plain = builder.add_event("answer", correlation=lambda ctx: "c", step_id="plain")
    definition = builder.build()

    assert (typed.output_model, plain.output_model) == (Answer, RootModel[Any])
    assert {step.node.kind for step in definition.steps} == {StepKind.READ_ONLY}
    assert definition.step("plain").make_input(object()).model_dump() == {"correlation_id": "c"}
    assert definition.step("typed").make_input(object()).model_dump() == {"correlation_id": None}
    assert "AwaitEvent" in definition.to_mermaid()


async def test_an_event_step_gives_its_default_when_nothing_comes() -> None:
    """Where it has one it goes on; otherwise it fails."""
    builder = SagaBuilder()
    builder.add_event("answer", model=Answer, timeout=HOUR, default=Answer(yes=False), step_id="asked")
    builder.add_event("answer", timeout=HOUR, default={"yes": False}, step_id="plain")
    builder.add_event("answer", timeout=HOUR, step_id="strict")
    asked, plain, strict = (step.step for step in builder.build().steps)
    given: Any = {"correlation_id": "c"}
    over: Event[Any] = Event(type=TIMED_OUT, payload=None)

    waits = [await step.execute(step.input_model(**given)) for step in (asked, plain, strict)]

    assert [(wait.on_timeout, wait.correlation_id) for wait in waits] == [
        ("resume", "c"),
        ("resume", "c"),
        ("fail", "c"),
    ]
    assert await asked.on_event(asked.input_model(), over) == Answer(yes=False)
    assert (await plain.on_event(plain.input_model(), over)).root == {"yes": False}
    assert await asked.on_event(asked.input_model(), Event(type="answer", payload=Answer())) == Answer()


async def test_a_timer_waits_for_a_while_or_until_a_moment() -> None:
    """The moment may be made of what the saga knows."""
    builder = SagaBuilder()
    builder.add_timer(HOUR, step_id="a")
    builder.add_timer(until=MOMENT, step_id="b")
    builder.add_timer(until=lambda ctx: MOMENT, step_id="c")
    steps = builder.build().steps

    waits = [await step.step.execute(step.make_input(object())) for step in steps]

    assert [(wait.timeout, wait.until) for wait in waits] == [(HOUR, None), (None, MOMENT), (None, MOMENT)]
    assert await steps[0].step.on_event(steps[0].make_input(object()), Event(type=TIMED_OUT, payload=None))


BAD_STEPS: dict[str, Any] = {
    "an event of no type": lambda it: it.add_event(),
    "a default that never comes": lambda it: it.add_event("answer", default=1),
    "an event of a wrong type": lambda it: it.add_event(""),
    "a timer without a time": lambda it: it.add_timer(),
    "a timer with two": lambda it: it.add_timer(HOUR, until=MOMENT),
    "a timer in the past": lambda it: it.add_timer(-HOUR),
    "a timer without a zone": lambda it: it.add_timer(until=datetime(2030, 1, 1)),  # noqa: DTZ001
}


@pytest.mark.parametrize("add", BAD_STEPS.values(), ids=BAD_STEPS)
def test_a_step_that_would_wait_wrongly_is_refused(add: Any) -> None:
    """When the saga is written down, not when it waits."""
    with pytest.raises(SagaDefinitionError):
        add(SagaBuilder())


async def test_a_step_goes_on_with_a_context_only_if_it_takes_one() -> None:
    """As it is with `execute`."""

    class Asking(Ask):
        async def on_event(self, inp: Question, event: Event[Answer], ctx: Any) -> Answer:
            return Answer(yes=ctx)

    builder = SagaBuilder()
    builder.add_step(step=Ask(), input_map=lambda ctx: Question(), kind=StepKind.READ_ONLY)
    builder.add_step(step=Asking(), input_map=lambda ctx: Question())
    event: Event[Any] = Event(type="answer", payload=Answer())
    context: Any = lambda: False  # noqa: E731

    answers = [await step.on_event(Question(), event, context) for step in builder.build().steps]

    assert answers == [Answer(), Answer(yes=False)]
