"""The worker processes, as their parent sees them: hired, killed without warning, sent home."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from types import TracebackType
from typing import Self

from sqlalchemy import URL

from .database import DemoError
from .worker import ADDRESS

_FAREWELL = 10
"""Seconds that a worker has to hand back its leases."""


class Crew:
    """The workers of one run. Leaving its context sends all of them home."""

    def __init__(self, url: URL) -> None:
        self._environment = os.environ | {ADDRESS: url.render_as_string(hide_password=False)}
        self._workers: dict[int, Process] = {}

    async def hire(self, count: int) -> None:
        """Start worker processes; they begin to look for work about a second later."""
        for _ in range(count):
            # In a session of its own, where the terminal's Ctrl-C does not reach it: its parent sends it home.
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"{__package__}.worker"),
                stdin=PIPE,
                env=self._environment,
                start_new_session=True,
            )
            self._workers[worker.pid] = worker

    @property
    def pids(self) -> set[int]:
        """The processes at work."""
        return set(self._workers)

    async def kill(self, pid: int) -> None:
        """Kill a worker as the kernel's out-of-memory killer would: it cannot even notice."""
        worker = self._workers.pop(pid)
        worker.kill()
        await worker.wait()

    def check(self) -> None:
        """Notice a worker that has ended by itself.

        Raises:
            DemoError: One has.
        """
        for pid, worker in self._workers.items():
            if worker.returncode is not None:
                raise DemoError(
                    f"Worker {pid} ended by itself with exit code {worker.returncode}; see its output above."
                )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(_send_home(worker) for worker in self._workers.values()))


async def _send_home(worker: Process) -> None:
    assert worker.stdin is not None
    worker.stdin.close()
    try:
        await asyncio.wait_for(worker.wait(), _FAREWELL)
    except TimeoutError:
        worker.kill()
        await worker.wait()
