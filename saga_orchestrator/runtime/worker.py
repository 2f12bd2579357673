"""`SagaWorker`: the loop around `run_due`, for a background process or task."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from loguru import logger

from ..errors import SagaDefinitionError, SagaSchemaError
from ..storage.store import SagaStore
from .error_text import show
from .home import running
from .numbers import LARGEST, check_count, check_duration
from .orchestrator import SagaOrchestrator, engine_of
from .stop_signals import stopped_by_signals

_SHORTEST = 0.005


class SagaWorker:
    """Drives due sagas until it is told to stop; run as many as you like, in as many processes as you like.

    It keeps up to `concurrency` sagas in hand. While there is more to do it asks for more at once; when there is not,
    it sleeps until the next saga is due, and never longer than `poll_interval`. A database that goes away is waited
    for.

    Stopping (SIGTERM, SIGINT, `stop()` or cancellation) hands every lease back at once: the work in flight is cut
    off, other workers take it over without delay, and no attempt is burnt. `drain` gives it that long to finish
    first.

    Args:
        poll_interval: The longest sleep between two looks, and so the longest delay of a saga started elsewhere.
        concurrency: How many sagas it drives at once.
        drain: How long sagas in hand may go on after a stop.
    """

    def __init__(
        self,
        orchestrator: SagaOrchestrator[Any],
        *,
        poll_interval: timedelta = timedelta(seconds=1),
        concurrency: int = 100,
        drain: timedelta = timedelta(0),
    ) -> None:
        check_duration("poll_interval", poll_interval, error=SagaDefinitionError)
        check_count("concurrency", concurrency, most=LARGEST, error=SagaDefinitionError)
        check_duration("drain", drain, least=timedelta(0), error=SagaDefinitionError)
        self._engine = engine_of(orchestrator, "SagaWorker")
        self._poll = poll_interval.total_seconds()
        self._concurrency = concurrency
        self._drain = drain.total_seconds()
        self._stopping = asyncio.Event()
        self._driving: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Ask the worker to stop, from any thread; `run` returns when it has."""
        if self._loop is None or self._loop is running():
            self._stopping.set()
        else:
            with contextlib.suppress(RuntimeError):  # its event loop is closed, and so it has stopped
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def run(self, *, handle_signals: bool = True) -> None:
        """Work until stopped or cancelled.

        Args:
            handle_signals: Stop on SIGTERM and SIGINT too, where this is the main thread. The host's own handlers are
                back when the worker has stopped.

        Raises:
            SagaStateError: The orchestrator belongs to another event loop.
            SagaSchemaError: At its start, a table of the sagas is missing, or is of another version.
        """
        if not self._engine.registry.claimable.versions:
            logger.warning("this worker will take nothing: no saga is registered in its process; call register first")
        self._engine.home.enter()
        self._loop = asyncio.get_running_loop()
        _ = self._engine.background.begin(self._check_database())
        with stopped_by_signals(self.stop) if handle_signals else contextlib.nullcontext():
            try:
                while not self._stopping.is_set():
                    await self._look()
                if self._driving and self._drain:
                    await asyncio.wait(self._driving, timeout=self._drain)
            finally:
                await self._engine.release_all()

    async def _check_database(self) -> None:
        """Say what the database's settings cost when a host is lost; one that is away is not asked."""
        store = self._engine.store
        if isinstance(store, SagaStore):
            with contextlib.suppress(Exception):
                await store.warn_of_keepalive()

    async def _look(self) -> None:
        """Take what is due, as far as hands are free; then wait until there is reason to look again."""
        free = self._concurrency - len(self._driving)
        claimed = 0
        if free > 0:
            try:
                claimed = self._take(await self._engine.claim_due(free))
            except SagaSchemaError:
                raise
            except Exception as error:  # noqa: BLE001 - a database that is away comes back
                logger.warning("looking for due sagas failed: {}", show(error, self._engine.payloads))
        if free == 0 or claimed < free:
            await self._rest(await self._pause() if free else self._poll)

    def _take(self, driving: list[asyncio.Task[None]]) -> int:
        for task in driving:
            self._driving.add(task)
            task.add_done_callback(self._driving.discard)
        return len(driving)

    async def _pause(self) -> float:
        """Return how long nothing will be due."""
        try:
            await self._engine.ready()
            due = await self._engine.store.next_due(self._engine.registry.claimable)
        except Exception:  # noqa: BLE001 - the next look will say so
            return self._poll
        if due is None:
            return self._poll
        return min(max((due - self._engine.now()).total_seconds(), _SHORTEST), self._poll)

    async def _rest(self, seconds: float) -> None:
        """Sleep; a saga that ends frees a hand, which is a reason to look only when all were full."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        full = self._driving if len(self._driving) >= self._concurrency else set()
        try:
            await asyncio.wait({stopping, *full}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
