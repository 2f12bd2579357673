"""With a payload codec no payload stands in plain text in a table or a log, whatever is raised."""

from __future__ import annotations

import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from loguru import logger
from pydantic import BaseModel, field_validator
from sqlalchemy import text

from saga_orchestrator import (
    BaseStep,
    Event,
    FailureAction,
    FixedRetry,
    OutcomeUnknown,
    PayloadError,
    PermanentError,
    SagaAdmin,
    SagaBuilder,
    SagaDefinition,
    SagaOrchestrator,
    SagaStateError,
    SagaStatus,
    StepContext,
    WaitFor,
)
from tests.support.sagas import NAME, Site, TripSaga, soon

SECRET = "4111-1111-1111-1111"
ORDER: dict[str, Any] = {"saga_name": NAME, "aggregation_id": "order-1", "initial_data": {"card": SECRET}}


class Base64:
    """Stands in for encryption: no payload stands in plain text."""

    def encode(self, text: str) -> str:
        return b64encode(text.encode()).decode()

    def decode(self, text: str) -> str:
        return b64decode(text).decode()


class Card(BaseModel):
    card: str


class Number(BaseModel):
    card: int


class TalkativeError(Exception):
    """Shows what it was made of."""

    def __repr__(self) -> str:
        return f"TalkativeError with {SECRET}"


def raise_value(card: str) -> None:
    raise ValueError(f"card {card} is refused")


def raise_with_cause(card: str) -> None:
    try:
        raise_value(card)
    except ValueError as error:
        raise RuntimeError("no payment") from error


def raise_group(card: str) -> None:
    raise ExceptionGroup(f"both for {card}", [ValueError(card), PermanentError(f"no {card}")])


def raise_talkative(card: str) -> None:
    raise TalkativeError


def raise_validation(card: str) -> None:
    Number(card=card)  # type: ignore[arg-type]


def raise_unknown(card: str) -> None:
    raise OutcomeUnknown(f"asked for {card}")


class Pay(BaseStep[Card, Card]):
    """Fails in its call, or in its undo."""

    def __init__(self, fail: Callable[[str], None], undo: Callable[[str], None] | None = None) -> None:
        self.fail, self.undo = fail, undo

    async def execute(self, inp: Card) -> Card:
        self.fail(inp.card)
        return inp

    async def compensate(self, inp: Card, out: Card | None) -> None:
        if self.undo is not None:
            self.undo(inp.card)


class Asked(Pay):
    """Has a probe that fails."""

    async def probe(self, inp: Card, ctx: StepContext) -> Card | None:
        raise ValueError(f"nothing known of {inp.card}")


class Insert(BaseStep[Card, Card]):
    """Breaks a constraint; the database quotes the row, and SQLAlchemy the parameters."""

    transactional = True

    async def execute(self, inp: Card, ctx: StepContext) -> Card:
        table = TripSaga.__tablename__
        await ctx.session.execute(text(f"INSERT INTO {table} (trace_id) VALUES (:card)"), {"card": inp.card})
        return inp

    async def compensate(self, inp: Card, out: Card) -> None: ...


def passes(card: str) -> None: ...


def saga_of(*steps: BaseStep[Any, Any], input_map: Any = lambda ctx: ctx.initial_data, **settings: Any) -> Any:
    builder = SagaBuilder(**settings)
    for index, step in enumerate(steps):
        builder.add_step(step=step, input_map=input_map, step_id=f"step_{index}")
    return builder.build()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What the library logs, with the values of variables."""
    said: list[str] = []
    sink = logger.add(said.append, level="DEBUG", diagnose=True, backtrace=True)
    logger.enable("saga_orchestrator")
    yield said
    logger.remove(sink)
    logger.disable("saga_orchestrator")


async def find_leaks(database: Site) -> list[str]:
    """Return every column of every table that shows the secret."""
    leaks = []
    for table in TripSaga.metadata.tables.values():
        columns = [column.name for column in table.columns]
        for row in await database.sql(f'SELECT {", ".join(columns)} FROM "{table.name}"'):
            leaks += [f"{table.name}.{name}" for name, value in zip(columns, row, strict=True) if SECRET in str(value)]
    return leaks


async def run(
    database: Site, definition: SagaDefinition, **options: Any
) -> tuple[UUID, SagaOrchestrator[TripSaga], SagaAdmin[TripSaga]]:
    orchestrator = database.joins(definition, payload_codec=Base64(), **options)
    saga_id = await soon(orchestrator.start(**ORDER))
    return saga_id, orchestrator, SagaAdmin[TripSaga](engine=orchestrator.engine)


RAISES = [raise_value, raise_with_cause, raise_group, raise_talkative, raise_validation]


@pytest.mark.parametrize("step", [*map(Pay, RAISES), Insert()], ids=[*(f.__name__ for f in RAISES), "constraint"])
async def test_what_a_step_raises_is_sealed(database: Site, log: list[str], step: BaseStep[Any, Any]) -> None:
    saga_id, orchestrator, admin = await run(database, saga_of(step))

    assert await find_leaks(database) == []
    assert SECRET not in "".join(log)
    shown = (await orchestrator.get_snapshot(saga_id)).last_error
    assert shown is not None
    assert SECRET not in shown
    assert "sealed" not in shown
    assert "test_secrets_in_errors.py:" in shown
    assert (await orchestrator.result(saga_id)).error == shown
    seen = await admin.get_saga(saga_id)
    assert seen.last_error is not None
    assert seen.last_error == seen.step_history[-1].error
    quotes = isinstance(step, Pay) and step.fail is not raise_validation
    assert (SECRET if quotes else "Error") in seen.last_error.removeprefix(f"{shown}: ")


@pytest.mark.parametrize("input_map", [lambda ctx: Number(**ctx.initial_data), lambda ctx: raise_value(SECRET)])
async def test_what_an_input_map_raises_is_sealed(database: Site, log: list[str], input_map: Any) -> None:
    saga_id, _, admin = await run(database, saga_of(Pay(passes), input_map=input_map))

    assert await find_leaks(database) == []
    assert SECRET not in "".join(log)
    error = (await admin.get_saga(saga_id)).last_error
    assert error is not None
    assert error.startswith("input_map of step 'step_0': ")


async def test_what_an_undo_raises_is_sealed(database: Site, log: list[str]) -> None:
    saga_id, _, admin = await run(database, saga_of(Pay(passes, raise_group), Pay(raise_value)))

    assert await find_leaks(database) == []
    assert SECRET not in "".join(log)
    seen = await admin.get_saga(saga_id)
    assert seen.status is SagaStatus.STUCK
    assert any(entry.phase == "COMPENSATE" and SECRET in (entry.error or "") for entry in seen.step_history)


async def test_what_a_probe_raises_is_sealed(database: Site, log: list[str]) -> None:
    builder = SagaBuilder()
    retry = FixedRetry(max_attempts=2, delay=timedelta(0))
    builder.add_step(
        step=Asked(raise_unknown), input_map=lambda ctx: ctx.initial_data, step_id="pay", retry_policy=retry
    )
    saga_id, _, admin = await run(database, builder.build())

    assert await find_leaks(database) == []
    assert SECRET not in "".join(log)
    errors = [entry.error or "" for entry in (await admin.get_saga(saga_id)).step_history]
    assert any("probe" in error and f"nothing known of {SECRET}" in error for error in errors)


async def test_what_a_hook_raises_is_sealed(database: Site, log: list[str]) -> None:
    async def close_all(saga_id: UUID) -> bool:
        raise ValueError(f"cannot close {SECRET}")

    definition = saga_of(
        Pay(passes),
        Pay(raise_value),
        on_failure=FailureAction.CLOSE_ALL,
        close_all=close_all,
        compensate_on_failure=False,
    )
    saga_id, orchestrator, admin = await run(database, definition)
    await soon(orchestrator.run_due())

    assert any("CLOSE_ALL" in line for line in log), log
    assert await find_leaks(database) == []
    assert SECRET not in "".join(log)
    assert SECRET in str((await admin.get_saga(saga_id)).last_error)


async def test_without_a_codec_a_validation_error_names_fields_and_no_values(database: Site) -> None:
    definition = saga_of(Pay(passes), input_map=lambda ctx: Number(**ctx.initial_data))
    orchestrator = database.joins(definition)

    error = (await orchestrator.result(await soon(orchestrator.start(**ORDER)))).error

    assert error is not None
    assert SECRET not in error
    assert "card: " in error


class Take(BaseStep[Number, Number]):
    """Waits for an operator, for its call has failed."""

    async def execute(self, inp: Number) -> Number:
        raise ValueError("no")


async def test_a_mock_output_that_does_not_fit_is_refused_without_its_values(database: Site) -> None:
    definition = saga_of(Pay(passes, raise_value), Take(), input_map=lambda ctx: {"card": "1"})
    saga_id, _, admin = await run(database, definition)

    with pytest.raises(SagaStateError, match="mock_output does not fit Number") as refused:
        await admin.skip_step(saga_id, step_id="step_1", mock_output={"card": SECRET})

    assert SECRET not in str(refused.value)
    assert "card: " in str(refused.value)


class Strict(BaseModel):
    """Its validator quotes what it was given."""

    card: str

    @field_validator("card")
    @classmethod
    def check(cls, value: str) -> str:
        raise ValueError(f"{value} is no card")


class Hear(BaseStep[Card, Card]):
    """Waits for a card."""

    async def execute(self, inp: Card) -> Card | WaitFor:
        return WaitFor("card")

    async def on_event(self, inp: Card, event: Event[Strict]) -> Card:
        return inp


async def test_why_an_event_does_not_fit_is_not_quoted(database: Site, log: list[str]) -> None:
    _, orchestrator, _ = await run(database, saga_of(Hear()))

    result = await soon(orchestrator.signal("card", aggregation_id="order-1", payload={"card": SECRET}))

    assert result.name == "REFUSED"
    assert await find_leaks(database) == []
    assert SECRET not in "".join(log)


async def test_a_childs_error_is_sealed_in_its_parent(database: Site, log: list[str]) -> None:
    builder = SagaBuilder()
    builder.add_child("child", input_map=lambda ctx: ctx.initial_data, output_model=Card, step_id="child")
    orchestrator = database.joins(builder.build(), payload_codec=Base64())
    orchestrator.register("child", saga_of(Pay(raise_value)))

    saga_id = await soon(orchestrator.start(**ORDER))
    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED

    assert await find_leaks(database) == []
    assert SECRET not in "".join(log)
    seen = await SagaAdmin[TripSaga](engine=orchestrator.engine).get_saga(saga_id)
    assert SECRET in str(seen.last_error)


class HearStrictly(BaseStep[Card, Strict]):
    """Waits for a card, and returns what quotes it when it is refused."""

    async def execute(self, inp: Card) -> Strict | WaitFor:
        return WaitFor("card")

    async def on_event(self, inp: Card, event: Event[Strict]) -> Strict:
        raise AssertionError("no card is ever accepted")


def chain_of(error: BaseException | None) -> str:
    """Return all that a traceback shows of an error."""
    return "" if error is None else "".join(traceback.format_exception(error))


async def test_a_caller_is_shown_no_value_that_does_not_fit(database: Site) -> None:
    """What `notify` and `skip_step` raise goes to the caller's log, with its causes."""
    saga_id, orchestrator, admin = await run(database, saga_of(HearStrictly()))
    token = (await orchestrator.get_snapshot(saga_id)).waits[0].token

    with pytest.raises(PayloadError) as refused:
        await orchestrator.notify(saga_id=saga_id, token=token, event={"card": SECRET})
    with pytest.raises(SagaStateError) as mocked:
        await admin.skip_step(saga_id, step_id="step_0", mock_output={"card": SECRET})

    for error in (refused.value, mocked.value):
        assert SECRET not in chain_of(error)
        assert "card: value_error" in str(error)
