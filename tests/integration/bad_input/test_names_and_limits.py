"""Names, numbers and texts that no database takes are refused before anything is written."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from saga_orchestrator import (
    FixedRetry,
    PayloadError,
    SagaBuilder,
    SagaDefinitionError,
    SagaError,
    SagaNotFoundError,
    SagaStateError,
    SagaStatus,
)
from tests.regressions.scene import NAME, ORDER, SECOND, OneWay, Scene, admin_of, asked, fails, saga

AGAIN = FixedRetry(max_attempts=5, delay=SECOND)
NUL, HALF = "a\x00b", "a\ud83db"


async def nothing_was_written(scene: Scene) -> bool:
    return not await scene.sql("SELECT 1 FROM order_saga")


async def test_an_unknown_saga_name_is_refused_with_those_that_are_known(timeless: Scene, ledger: list[str]) -> None:
    """The message helps with a typing error."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    with pytest.raises(SagaDefinitionError, match=f"'ordre' is not registered; known: {NAME}"):
        await orchestrator.start(saga_name="ordre", initial_data={}, aggregation_id="o-1")
    assert await nothing_was_written(timeless)


async def test_an_unknown_saga_id_is_not_found(timeless: Scene, ledger: list[str]) -> None:
    """Whoever is asked, for whatever, says which id it was."""
    orchestrator, nobody = timeless.orchestrator(saga(OneWay("a", ledger))), uuid4()
    admin = admin_of(orchestrator)
    asks: list[Any] = [
        orchestrator.get_snapshot(nobody),
        orchestrator.result(nobody),
        orchestrator.resume(nobody),
        orchestrator.notify(saga_id=nobody, token=uuid4()),
        admin.get_saga(nobody),
        admin.retry_step(nobody),
        admin.skip_step(nobody),
        admin.compensate_step(nobody),
        admin.cancel(nobody),
        admin.abort(nobody),
        admin.waive_step(nobody, "a", actor="ada"),
    ]
    for ask in asks:
        with pytest.raises(SagaNotFoundError, match=str(nobody)):
            await ask


def test_a_name_is_registered_once_for_each_version(timeless: Scene, ledger: list[str]) -> None:
    """A second definition under the same name needs a version of its own; the message says how to give it one."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    with pytest.raises(SagaDefinitionError, match=r"already registered with version 1.*version="):
        orchestrator.register(NAME, saga(OneWay("b", ledger)))
    orchestrator.register(NAME, saga(OneWay("b", ledger), version=2))


@pytest.mark.parametrize("name", ["", "x" * 256, NUL, HALF])
def test_a_saga_name_that_no_database_takes_is_not_registered(timeless: Scene, ledger: list[str], name: str) -> None:
    """It would be found only when `run_due` asks the database for it, and stop the recovery of every saga."""
    with pytest.raises(SagaDefinitionError, match="name"):
        timeless.orchestrator().register(name, saga(OneWay("a", ledger)))


def test_what_is_not_a_definition_is_not_registered(timeless: Scene, ledger: list[str]) -> None:
    """Most often the builder itself, whose `build` was forgotten."""
    with pytest.raises(SagaDefinitionError, match=r"SagaBuilder\.build\(\)"):
        timeless.orchestrator().register(NAME, SagaBuilder())  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [0, -1, 2**31, 1.5, True])
def test_a_version_that_no_column_holds_is_refused(version: Any) -> None:
    """As with names: it would stop the recovery of every saga of the process."""
    with pytest.raises(SagaDefinitionError, match="version"):
        SagaBuilder(version=version)


@pytest.mark.parametrize("which", ["aggregation_id", "trace_id", "idempotency_key"])
@pytest.mark.parametrize("value", ["", "x" * 256, 7])
async def test_an_id_that_is_empty_too_long_or_no_text_is_refused(
    timeless: Scene, ledger: list[str], which: str, value: Any
) -> None:
    """The message says which of them it is, and how long it may be."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    with pytest.raises(SagaStateError, match=f"{which} has 1 to 255 characters"):
        await orchestrator.start(**{**ORDER, which: value})
    assert await nothing_was_written(timeless)


@pytest.mark.parametrize("which", ["aggregation_id", "trace_id", "idempotency_key"])
@pytest.mark.parametrize("value", [NUL, HALF])
async def test_an_id_with_characters_that_no_database_takes_is_refused(
    timeless: Scene, ledger: list[str], which: str, value: str
) -> None:
    """PostgreSQL rejects NUL and lone surrogates; SQLite would take them, and the saga could not be moved there."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    with pytest.raises(PayloadError, match=which):
        await orchestrator.start(**{**ORDER, which: value})
    assert await nothing_was_written(timeless)


async def test_ids_of_the_greatest_length_and_any_script_are_taken(scene: Scene, ledger: list[str]) -> None:
    """255 characters are 255 characters, however many bytes they take."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger)))
    longest = {"aggregation_id": "訂" * 255, "trace_id": "🧾" * 255, "idempotency_key": "ß" * 255}
    snapshot = await orchestrator.get_snapshot(await orchestrator.start(**{**ORDER, **longest}))
    assert (snapshot.aggregation_id, snapshot.trace_id) == ("訂" * 255, "🧾" * 255)


@pytest.mark.parametrize("priority", [2**31, -(2**31) - 1, 1.5, "high", None])
async def test_a_priority_that_no_column_holds_is_refused(timeless: Scene, ledger: list[str], priority: Any) -> None:
    """Before the write, and not by the database's own words."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    with pytest.raises(SagaStateError, match="priority"):
        await orchestrator.start(**ORDER, priority=priority)
    assert await nothing_was_written(timeless)


@pytest.mark.parametrize("text", [{"actor": NUL}, {"actor": "x" * 256}, {"reason": HALF}, {"actor": 7}])
async def test_an_order_signed_with_what_no_database_takes_is_refused(
    timeless: Scene, ledger: list[str], text: dict[str, Any]
) -> None:
    """The order is not carried out, and can be given again under a better name."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    with pytest.raises(SagaError, match=next(iter(text))):
        await admin_of(orchestrator).abort(saga_id, **text)
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.SUSPENDED
    await admin_of(orchestrator).abort(saga_id, actor="ada", reason="ß" * 5000)


async def test_an_error_with_characters_that_no_database_takes_is_recorded_all_the_same(
    scene: Scene, ledger: list[str]
) -> None:
    """What a step raises is not the saga's fault: it is shown with the characters escaped."""
    orchestrator = scene.orchestrator(saga(OneWay("a", ledger, does=fails(ValueError("NUL \x00, half \ud83d")))))
    result = await orchestrator.result(await orchestrator.start(**ORDER))
    assert result.status is SagaStatus.FAILED
    assert r"NUL \x00, half \ud83d" in (result.error or "")


async def test_columns_of_the_engine_cannot_be_given_as_ones_own(timeless: Scene, ledger: list[str]) -> None:
    """`values=` is for the columns that the user has added."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)))
    with pytest.raises(SagaStateError, match="status"):
        await orchestrator.start(**ORDER, values={"status": "COMPLETED"})
    assert await nothing_was_written(timeless)


async def test_an_input_map_that_is_not_a_function_is_refused_when_the_step_is_added(ledger: list[str]) -> None:
    """Neither is a coroutine function, which would never be awaited."""

    async def later(context: Any) -> Any:
        return asked(context)

    for wrong in ({"order_id": "1"}, later):
        with pytest.raises(SagaDefinitionError, match="input_map of step 'step_0'"):
            SagaBuilder().add_step(step=OneWay("a", ledger), input_map=wrong)  # type: ignore[call-overload]
