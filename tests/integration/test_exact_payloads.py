"""Payloads that are hard to keep: a step and its undo get them as they were, or the step is not called."""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field, FutureDatetime, SecretStr

from saga_orchestrator import BaseStep, PayloadError, SagaBuilder, SagaDefinition, SagaStatus
from tests.support import logs
from tests.support.sagas import NAME, Site, soon

ORDER = {"saga_name": NAME, "aggregation_id": "order-1"}


class Base64:
    """Stands in for encryption: no payload stands in plain text."""

    def encode(self, text: str) -> str:
        return b64encode(text.encode()).decode()

    def decode(self, text: str) -> str:
        return b64decode(text).decode()


class Account(BaseModel):
    name: str


class Token(BaseModel):
    token: SecretStr


class LogIn(BaseStep[Account, Token]):
    """Takes nothing secret, and returns a secret."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def execute(self, inp: Account) -> Token:
        self.seen.append(f"log in {inp.name}")
        return Token(token=SecretStr("t0p"))

    async def compensate(self, inp: Account, out: Token) -> None:
        self.seen.append(f"revoke {out.token.get_secret_value()}")


class Pay(BaseStep[Token, Account]):
    """Takes a secret, and fails."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def execute(self, inp: Token) -> Account:
        self.seen.append(f"pay with {inp.token.get_secret_value()}")
        raise ValueError("no money")

    async def compensate(self, inp: Token, out: Account) -> None: ...


def secretive(seen: list[str]) -> SagaDefinition:
    builder = SagaBuilder()
    token = builder.add_step(step=LogIn(seen), step_id="log_in", input_map=lambda ctx: Account(name="ann"))
    builder.add_step(step=Pay(seen), step_id="pay", depends_on=token, input_map=lambda out: out)
    return builder.build()


async def test_a_codec_keeps_a_secret_for_the_next_step_and_for_the_undo(database: Site) -> None:
    seen: list[str] = []
    orchestrator = database.joins(secretive(seen), payload_codec=Base64())

    saga_id = await orchestrator.start(**ORDER, initial_data={})

    assert (await soon(orchestrator.result(saga_id))).status is SagaStatus.COMPENSATED
    assert seen == ["log in ann", "pay with t0p", "revoke t0p"]


async def test_without_a_codec_a_step_that_returns_a_secret_is_not_called(database: Site) -> None:
    """Its output could not be stored, and so not be undone: it is refused before it acts, and the log says so early."""
    seen: list[str] = []
    with logs.logged("WARNING") as said:
        orchestrator = database.joins(secretive(seen))

    result = await soon(orchestrator.result(await orchestrator.start(**ORDER, initial_data={})))

    assert (result.status, result.residue, seen) == (SagaStatus.FAILED, (), [])
    assert result.error is not None
    assert "'token' of Token is a secret" in result.error
    assert [text for text in said if "step 'log_in': in its output, field 'token' of Token is a secret" in text]


async def test_without_a_codec_initial_data_with_a_secret_is_refused(database: Site) -> None:
    orchestrator = database.joins(secretive([]))

    with pytest.raises(PayloadError, match="has a SecretStr in 'token'"):
        await orchestrator.start(**ORDER, initial_data=Token(token=SecretStr("t0p")))

    assert await database.value("SELECT count(*) FROM trip_saga") == 0


# --- moments, aliases and sets ---------------------------------------------------------------------------------------


class Visit(BaseModel):
    at: FutureDatetime


class Book(BaseStep[Visit, Visit]):
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    async def execute(self, inp: Visit) -> Visit:
        return inp

    async def compensate(self, inp: Visit, out: Visit) -> None:
        self.seen.append((inp.at, out.at))


class Fails(BaseStep[Account, Account]):
    async def execute(self, inp: Account) -> Account:
        raise ValueError("no")


async def test_an_undo_gets_a_moment_that_was_in_the_future(database: Site) -> None:
    """What a model checks against the clock was checked when it was made."""
    seen: list[Any] = []
    past = datetime(2001, 1, 1, tzinfo=UTC)
    builder = SagaBuilder()
    builder.add_step(step=Book(seen), step_id="book", input_map=lambda _: Visit.model_construct(at=past))
    builder.add_step(step=Fails(), step_id="fails", input_map=lambda _: Account(name="ann"))
    orchestrator = database.joins(builder.build())

    result = await soon(orchestrator.result(await orchestrator.start(**ORDER, initial_data={})))

    assert (result.status, seen) == (SagaStatus.COMPENSATED, [(past, past)])


class Paid(BaseModel):
    payer: str = Field(alias="payee")
    payee: str = Field(alias="payer")


class Pays(BaseStep[Account, Paid]):
    async def execute(self, inp: Account) -> Paid:
        return Paid(payee="ann", payer="bob")


async def test_the_output_of_a_child_is_read_by_the_names_of_its_fields(database: Site) -> None:
    """An alias that is the name of another field does not swap the two."""
    child = SagaBuilder()
    child.add_step(step=Pays(), step_id="pays", input_map=lambda _: Account(name="ann"), compensation=None)
    builder = SagaBuilder()
    builder.add_child("pay", input_map=lambda _: {}, output_model=Paid, step_id="child", compensation=None)
    orchestrator = database.joins(builder.build())
    orchestrator.register("pay", child.build())

    result = await soon(orchestrator.result(await orchestrator.start(**ORDER, initial_data={})))

    assert (result.status, result.outputs["child"]) == (SagaStatus.COMPLETED, {"payer": "ann", "payee": "bob"})


async def test_a_start_with_an_equal_set_is_the_same_start(database: Site) -> None:
    """Each process goes through a set in an order of its own."""
    one, other = frozenset([0, 8]), frozenset([8, 0])
    assert list(one) != list(other)
    builder = SagaBuilder()
    builder.add_step(step=Fails(), step_id="fails", input_map=lambda _: Account(name="ann"))
    orchestrator = database.joins(builder.build())

    first = await orchestrator.start_once(**ORDER, initial_data={"tags": one}, idempotency_key="k")
    again = await orchestrator.start_once(**ORDER, initial_data={"tags": other}, idempotency_key="k")

    assert (again.saga_id, again.created) == (first.saga_id, False)
