"""Numbers, durations and moments that make no sense: each door names the argument and says what it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from saga_orchestrator import SagaAdmin, SagaDefinitionError, SagaOrchestrator, SagaStateError, SagaWorker, StepContext
from saga_orchestrator.storage.limits import give_up_after
from saga_orchestrator.testing import MemoryStore
from tests.regressions.scene import NAME, ORDER, Asked, OneWay, OrderSaga, Receipt, Scene, admin_of, saga

SOME, NOW = UUID(int=1), datetime.now(UTC)
NO_COUNTS = ["7", None, 1.5, True, -1, object()]
NO_DURATIONS = ["PT10S", 10, 1.5, NOW, object()]
PAST = timedelta(seconds=-1)


def _made(**settings: Any) -> SagaOrchestrator[OrderSaga]:
    return SagaOrchestrator[OrderSaga](store=MemoryStore(), **settings)


@pytest.mark.parametrize("setting", ["execution_lease", "database_timeout", "event_retention"])
@pytest.mark.parametrize("wrong", [*NO_DURATIONS, None, PAST, timedelta(0)])
def test_a_setting_that_is_no_duration_is_refused(setting: str, wrong: Any) -> None:
    """It was an AttributeError or TypeError from inside, or was believed."""
    with pytest.raises(SagaDefinitionError, match=rf"^{setting} is .*; give it a timedelta"):
        _made(**{setting: wrong})


def test_a_lease_longer_than_any_calendar_is_refused() -> None:
    with pytest.raises(SagaDefinitionError, match=r"execution_lease is .*; give it a timedelta of at most 36500 days"):
        _made(execution_lease=timedelta.max)


@pytest.mark.parametrize("setting", ["max_payload_bytes", "threads"])
@pytest.mark.parametrize("wrong", [*NO_COUNTS, 0])
def test_a_setting_that_is_no_number_is_refused(setting: str, wrong: Any) -> None:
    """None let every payload fail, and True was a number."""
    with pytest.raises(SagaDefinitionError, match=rf"^{setting} is .*; give it a whole number"):
        _made(**{setting: wrong})


class _OnlyEncodes:
    def encode(self, text: str) -> str:
        return text


class _Codec(_OnlyEncodes):
    def decode(self, text: str) -> str:
        return text


@pytest.mark.parametrize("wrong", ["key", _OnlyEncodes(), 7])
def test_a_codec_that_is_none_is_refused(wrong: Any) -> None:
    """It was an AttributeError of the first payload."""
    with pytest.raises(SagaDefinitionError, match=r"payload_codec is .*; give it an object with encode and decode"):
        _made(payload_codec=wrong)
    _made(payload_codec=_Codec())


@pytest.mark.parametrize("wrong", [*NO_DURATIONS, None, PAST])
@pytest.mark.parametrize("setting", ["poll_interval", "drain"])
def test_a_worker_refuses_what_is_no_duration(setting: str, wrong: Any) -> None:
    with pytest.raises(SagaDefinitionError, match=rf"^{setting} is .*; give it a timedelta"):
        SagaWorker(_made(), **{setting: wrong})


@pytest.mark.parametrize("wrong", [*NO_COUNTS, 0])
def test_a_worker_refuses_what_is_no_number(wrong: Any) -> None:
    with pytest.raises(SagaDefinitionError, match=r"^concurrency is .*; give it a whole number: 1 to"):
        SagaWorker(_made(), concurrency=wrong)
    with pytest.raises(SagaDefinitionError, match=r"poll_interval is .* longer than 0"):
        SagaWorker(_made(), poll_interval=timedelta(0))


@pytest.mark.parametrize("wrong", [*NO_COUNTS, 2**63])
async def test_a_limit_that_is_no_number_is_refused(wrong: Any) -> None:
    """Some were compared, some counted, and the largest one was an error of the driver's."""
    async with _made() as orchestrator:
        admin = SagaAdmin[OrderSaga](orchestrator)
        for ask in (orchestrator.run_due, admin.list_sagas, partial(admin.purge, older_than=timedelta(days=1))):
            with pytest.raises(SagaStateError, match=r"^limit is .*; give it a whole number"):
                await ask(limit=wrong)
        if wrong != 2**63:
            with pytest.raises(SagaStateError, match=r"^limit is .*; give it a whole number"):
                await admin.dirty_sagas(limit=wrong)


async def test_a_limit_of_nothing_is_nothing(ledger: list[str]) -> None:
    """Whoever has no hands free may say so."""
    async with _made() as orchestrator:
        orchestrator.register(NAME, saga(OneWay("a", ledger)))
        assert await orchestrator.run_due(limit=0) == 0
        assert await SagaAdmin[OrderSaga](orchestrator).dirty_sagas(limit=0) == []


@pytest.mark.parametrize("wrong", NO_DURATIONS)
async def test_a_timeout_that_is_no_duration_is_refused(ledger: list[str], wrong: Any) -> None:
    """Before a saga is started: `run` had started it, and then failed."""
    async with _made() as orchestrator:
        orchestrator.register(NAME, saga(OneWay("a", ledger)))
        admin = SagaAdmin[OrderSaga](orchestrator)
        for ask in (
            partial(orchestrator.run, **ORDER, timeout=wrong),
            partial(orchestrator.result, SOME, timeout=wrong),
            partial(admin.purge, older_than=timedelta(days=1), timeout=wrong),
        ):
            with pytest.raises(SagaStateError, match=r"^timeout is .*; give it a timedelta"):
                await ask()
        with pytest.raises(SagaStateError, match=r"^timeout is .*; give it a timedelta longer than 0"):
            await admin.purge(older_than=timedelta(days=1), timeout=PAST)
        with pytest.raises(SagaStateError, match=r"^older_than is .*; give it a timedelta"):
            await admin.purge(older_than=wrong)
        assert (await admin.list_sagas()).items == []
    assert ledger == []


async def test_a_time_that_has_run_out_is_a_timeout(ledger: list[str]) -> None:
    """What is left of a caller's own time may be nothing, or less."""
    async with _made() as orchestrator:
        orchestrator.register(NAME, saga(OneWay("a", ledger)))
        saga_id = await orchestrator.start(**ORDER)
        for left in (timedelta(0), PAST):
            with pytest.raises(TimeoutError):
                await orchestrator.result(saga_id, timeout=left)


@pytest.mark.parametrize("wrong", ["2026-01-01", 1767225600, NOW.replace(tzinfo=None)])
@pytest.mark.parametrize("name", ["created_after", "created_before"])
async def test_a_moment_without_a_zone_is_refused(name: str, wrong: Any) -> None:
    """A text was an AttributeError."""
    async with _made() as orchestrator:
        with pytest.raises(SagaStateError, match=rf"^{name} .*time zone"):
            await SagaAdmin[OrderSaga](orchestrator).list_sagas(**{name: wrong})


@pytest.mark.parametrize("wrong", [7, [7], object()])
async def test_a_status_that_is_none_is_refused(wrong: Any) -> None:
    """A number was no iterable."""
    async with _made() as orchestrator:
        for ask in ("list_sagas", "purge"):
            said = {"status": wrong} if ask == "list_sagas" else {"statuses": wrong, "older_than": timedelta(days=1)}
            with pytest.raises(SagaStateError, match="status"):
                await getattr(SagaAdmin[OrderSaga](orchestrator), ask)(**said)


class TestLongLimits:
    def test_a_server_is_told_no_more_than_it_takes(self) -> None:
        """PostgreSQL counts milliseconds in 31 bits."""
        assert give_up_after(60 * 86_400) == f"; SET LOCAL idle_in_transaction_session_timeout = {2**31 - 1}"
        assert give_up_after(0.0001) == "; SET LOCAL idle_in_transaction_session_timeout = 1"

    async def test_they_may_be_longer_than_a_month(self, scene: Scene, ledger: list[str]) -> None:
        """PostgreSQL refused such a purge, and every attempt of such a transactional step."""

        class Patient(OneWay):
            transactional = True

            async def execute(self, inp: Asked, ctx: StepContext) -> Receipt:
                return Receipt(number=str((await ctx.session.execute(text("SELECT 1"))).scalar_one()))

        month = timedelta(days=60)
        orchestrator = scene.orchestrator(saga(Patient("a", ledger), timeout=month))
        assert await admin_of(orchestrator).purge(older_than=timedelta(days=1), timeout=month) == 0
        await orchestrator.run(**ORDER, timeout=timedelta.max)
