"""What the schemas of a saga's steps tell before any saga runs: fields that are lost, and secrets."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, FutureDatetime, SecretStr

from saga_orchestrator import BaseStep, Event, PayloadError, SagaBuilder, SagaDefinition, SagaDefinitionError, WaitFor
from saga_orchestrator.definition.models import check_output, describe_secrets


class Plain(BaseModel):
    n: int = 0


class Secretive(BaseModel):
    key: SecretStr


class Leaky(BaseModel):
    card: str = Field(default="", exclude=True)


class Takes(BaseStep[Secretive, Plain]):
    async def execute(self, inp: Secretive) -> Plain: ...


class Returns(BaseStep[Plain, Secretive]):
    async def execute(self, inp: Plain) -> Secretive: ...


class Hears(BaseStep[Plain, Plain]):
    async def execute(self, inp: Plain) -> Plain | WaitFor: ...

    async def on_event(self, inp: Plain, event: Event[Secretive]) -> Plain: ...


class Loses(BaseStep[Plain, Leaky]):
    async def execute(self, inp: Plain) -> Leaky: ...


def saga_of(step: BaseStep) -> SagaDefinition:
    builder = SagaBuilder()
    builder.add_step(step=step, input_map=lambda ctx: ctx.initial_data, step_id="one", compensation=None)
    return builder.build()


def test_a_field_that_no_value_survives_is_refused_when_the_saga_is_built() -> None:
    with pytest.raises(SagaDefinitionError, match="Step 'one': in its output, field 'card' of Leaky has exclude=True"):
        saga_of(Loses())


@pytest.mark.parametrize(("step", "role"), [(Takes(), "input"), (Returns(), "output"), (Hears(), "event")])
def test_secrets_are_named_wherever_a_step_meets_them(step: BaseStep, role: str) -> None:
    (said,) = describe_secrets("login", saga_of(step).steps)

    assert said.startswith(f"Saga 'login', step 'one': in its {role}, field 'key' of Secretive is a secret")
    assert "payload_codec" in said


def test_only_a_step_that_returns_a_secret_cannot_be_called() -> None:
    for step in (Takes(), Hears()):
        check_output(saga_of(step).steps[0])

    with pytest.raises(PayloadError, match="Step 'one' was not called: in its output, field 'key' of Secretive"):
        check_output(saga_of(Returns()).steps[0])


class Swapped(BaseModel):
    payer: str = Field(alias="payee")
    payee: str = Field(alias="payer")


class Timed(BaseModel):
    at: FutureDatetime


def test_an_event_that_could_be_read_in_two_ways_is_refused_when_the_saga_is_built() -> None:
    class HearsSwapped(BaseStep[Swapped, Swapped]):
        async def execute(self, inp: Swapped) -> Swapped | WaitFor: ...

        async def on_event(self, inp: Swapped, event: Event[Swapped]) -> Swapped: ...

    class TakesSwapped(BaseStep[Swapped, Swapped]):
        async def execute(self, inp: Swapped) -> Swapped: ...

    assert saga_of(TakesSwapped())
    with pytest.raises(SagaDefinitionError, match="in its event, field 'payer' of Swapped has the name of another"):
        saga_of(HearsSwapped())


def test_a_moment_that_could_not_be_read_later_is_refused_when_the_saga_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Takes(BaseStep[Timed, Plain]):
        async def execute(self, inp: Timed) -> Plain: ...

    assert saga_of(Takes())
    monkeypatch.setattr("saga_orchestrator.definition.models.can_ignore_clock", lambda model: model is not Timed)
    with pytest.raises(SagaDefinitionError, match="in its input, Timed compares a moment with the clock"):
        saga_of(Takes())
