"""Payloads that cannot be stored, or are not what was promised."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from saga_orchestrator import BaseStep, FixedRetry, PayloadError, SagaBuilder, SagaStateError, SagaStatus
from tests.regressions.scene import (
    NAME,
    ORDER,
    SECOND,
    Asked,
    OneWay,
    Receipt,
    Scene,
    Undoable,
    UndoableBlindly,
    admin_of,
    asked,
    fails,
    saga,
)

AGAIN = FixedRetry(max_attempts=3, delay=SECOND)
NUL, HALF = "a\x00b", "a\ud83db"
DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
LOOP: list[Any] = []
LOOP.append(LOOP)

UNSTORABLE = {
    "an object": object(),
    "a function": fails,
    "a NUL": {"note": NUL},
    "a NUL in a key": {NUL: 1},
    "half a surrogate pair": {"note": HALF},
    "too deep": DEEP,
    "a loop": LOOP,
    "too large": {"note": "x" * 2000},
    "too large in bytes": {"note": "訂" * 400},
}


@pytest.mark.parametrize("what", UNSTORABLE)
async def test_initial_data_that_cannot_be_stored_starts_nothing(timeless: Scene, ledger: list[str], what: str) -> None:
    """The error names it, before the write; on every database the same."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger)), max_payload_bytes=1000)
    with pytest.raises(PayloadError, match="initial_data"):
        await orchestrator.start(saga_name=NAME, initial_data=UNSTORABLE[what], aggregation_id="o-1")
    assert await timeless.sql("SELECT 1 FROM order_saga") == []


@pytest.mark.parametrize("what", UNSTORABLE)
async def test_an_event_that_cannot_be_stored_ends_no_wait(timeless: Scene, ledger: list[str], what: str) -> None:
    """The saga waits on, and the token is still good."""
    orchestrator = timeless.orchestrator(
        saga(OneWay("a", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN), max_payload_bytes=1000
    )
    saga_id = await orchestrator.start(**ORDER)
    before = await orchestrator.get_snapshot(saga_id)
    assert before.step_execution_token is not None
    with pytest.raises(PayloadError, match="event"):
        await orchestrator.notify(saga_id=saga_id, token=before.step_execution_token, event=UNSTORABLE[what])
    assert await orchestrator.get_snapshot(saga_id) == before


class Anything(BaseModel):
    """A model that holds whatever it is given."""

    value: Any = None


BAD_OUTPUTS = {
    "of another model": Asked(),
    "of no model": {"value": 1},
    "nothing": None,
    "with an object": Anything(value=object()),
    "with a NUL": Anything(value=NUL),
    "with half a surrogate pair": Anything(value=HALF),
    "too large": Anything(value="x" * 2000),
}


class Sloppy(BaseStep[Asked, Anything]):
    """A step that acts, and then returns what it should not."""

    def __init__(self, ledger: list[str], output: Any) -> None:
        self.ledger, self.output, self.calls = ledger, output, 0

    async def execute(self, inp: Asked) -> Anything:
        self.ledger.append("charge")
        self.calls += 1
        return self.output  # type: ignore[no-any-return]

    async def compensate(self, inp: Asked, out: Anything | None) -> None:
        self.ledger.append(f"refund with {out}")


@pytest.mark.parametrize("what", BAD_OUTPUTS)
async def test_an_output_that_cannot_be_stored_leaves_its_step_in_doubt_and_not_lost(
    timeless: Scene, ledger: list[str], what: str
) -> None:
    """The step has acted: it is not called again, which would not help, and it is undone without its output."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    step = Sloppy(ledger, BAD_OUTPUTS[what])
    builder.add_step(step=step, input_map=asked, step_id="charge", retry_policy=AGAIN)
    orchestrator = timeless.orchestrator(builder.build(), max_payload_bytes=1000)
    saga_id = await orchestrator.start(**ORDER)
    found = await admin_of(orchestrator).get_saga(saga_id)
    assert found.status is SagaStatus.COMPENSATED
    assert ledger == ["reserve", "charge", "refund with None", "undo reserve"]
    assert [(e.status, e.step_id) for e in found.step_history if e.phase == "EXECUTE"] == [
        ("SUCCESS", "reserve"),
        ("IN_DOUBT", "charge"),
    ]


async def test_an_output_that_is_lost_and_needed_for_the_undo_is_left_to_a_person(
    timeless: Scene, ledger: list[str]
) -> None:
    """Where the compensation cannot do without the output, the saga is STUCK with that step as its residue."""
    wrong = Undoable("charge", ledger, does=returns(Asked()))
    orchestrator = timeless.orchestrator(saga(Undoable("reserve", ledger), wrong))
    snapshot = await orchestrator.get_snapshot(await orchestrator.start(**ORDER))
    assert (snapshot.status, snapshot.residue) == (SagaStatus.STUCK, ("charge",))
    assert "Asked, not Receipt" in (snapshot.last_error or "")


def returns(value: Any) -> Any:
    async def deed(ctx: Any) -> Any:
        return value

    return deed


BAD_MAPS = {
    "raises": lambda _: 1 / 0,
    "returns another model": lambda _: Receipt(number="1"),
    "returns nothing": lambda _: None,
    "returns a dict that does not fit": lambda _: {"order_id": []},
    "returns what cannot be stored": lambda _: Asked(order_id=NUL),
    "returns what is too large": lambda _: Asked(order_id="x" * 2000),
}


@pytest.mark.parametrize("what", BAD_MAPS)
async def test_an_input_map_that_cannot_make_an_input_fails_a_step_that_did_not_act(
    timeless: Scene, ledger: list[str], what: str
) -> None:
    """It is not tried again, nothing of the step is undone, and the caller of `start` is not bothered."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    blind: Any = BAD_MAPS[what]
    builder.add_step(step=UndoableBlindly("charge", ledger), input_map=blind, step_id="charge", retry_policy=AGAIN)
    orchestrator = timeless.orchestrator(builder.build(), max_payload_bytes=1000)
    result = await orchestrator.result(await orchestrator.start(**ORDER))
    assert (result.status, ledger) == (SagaStatus.COMPENSATED, ["reserve", "undo reserve"])
    assert "'charge'" in (result.error or "")


class Moody(BaseModel):
    """A model that was changed since its values were written."""

    number: str

    @model_validator(mode="after")
    def refuse(self) -> Moody:
        if self.number == "refused":
            raise ValueError("numbers have digits")
        return self


class Charge(BaseStep[Asked, Moody]):
    """A step whose output could once be read."""

    async def execute(self, inp: Asked) -> Moody:
        return Moody.model_construct(number="refused")

    async def compensate(self, inp: Asked, out: Moody) -> None:
        raise AssertionError("never called without its output")


async def test_a_stored_output_that_no_longer_fits_its_model_stops_nobody_and_is_left_to_a_person(
    timeless: Scene, ledger: list[str]
) -> None:
    """The undo that needs it fails for good, the others are done, and the saga says which effect stands."""
    builder = SagaBuilder()
    builder.add_step(step=Undoable("reserve", ledger), input_map=asked, step_id="reserve")
    builder.add_step(step=Charge(), input_map=asked, step_id="charge")
    builder.add_step(step=OneWay("ship", ledger, does=fails(ValueError("no truck"))), input_map=asked, step_id="ship")
    definition = builder.build()
    saga_id = await timeless.orchestrator(definition).start(**ORDER)
    found = await admin_of(timeless.orchestrator(definition)).get_saga(saga_id)
    assert (found.status, found.residue) == (SagaStatus.STUCK, ("charge",))
    assert "numbers have digits" in str([e.error for e in found.step_history])
    assert ledger == ["reserve", "undo reserve"]


async def test_a_mock_output_that_does_not_fit_skips_nothing(timeless: Scene, ledger: list[str]) -> None:
    """The order is refused with what is wrong with it, and can be given again."""
    orchestrator = timeless.orchestrator(saga(OneWay("a", ledger, does=fails(ValueError("no"))), retry_policy=AGAIN))
    saga_id = await orchestrator.start(**ORDER)
    admin = admin_of(orchestrator)
    for wrong in ({"nummer": "1"}, Asked(), None):
        with pytest.raises(SagaStateError, match=r"does not fit Receipt, the output of step 'a'"):
            await admin.skip_step(saga_id, mock_output=wrong)
    with pytest.raises(PayloadError, match="NUL"):
        await admin.skip_step(saga_id, mock_output={"number": NUL})
    await admin.skip_step(saga_id, mock_output={"number": "1"})
    assert (await orchestrator.get_snapshot(saga_id)).status is SagaStatus.COMPLETED


async def test_a_codec_that_raises_writes_nothing_and_loses_nothing(timeless: Scene, ledger: list[str]) -> None:
    """A key that is missing for a while is a clear error at the start, and no reason to lose what a step returned."""

    class Vault:
        locked = False

        def encode(self, text: str, /) -> str:
            if self.locked:
                raise RuntimeError("the vault is locked")
            return text[::-1]

        def decode(self, text: str, /) -> str:
            return text[::-1]

    vault = Vault()

    async def lock(ctx: Any) -> None:
        vault.locked = True

    orchestrator = timeless.orchestrator(saga(UndoableBlindly("charge", ledger, does=lock)), payload_codec=vault)
    saga_id = await orchestrator.start(**ORDER)
    found = await admin_of(orchestrator).get_saga(saga_id)
    assert [(e.phase, e.status) for e in found.step_history][:1] == [("EXECUTE", "IN_DOUBT")]
    assert "PayloadError (" in (found.last_error or "")
    assert "vault" not in (found.last_error or "")
    with pytest.raises(PayloadError, match="initial_data could not be encoded by Vault: it raised RuntimeError"):
        await orchestrator.start(**{**ORDER, "aggregation_id": "o-2"})
