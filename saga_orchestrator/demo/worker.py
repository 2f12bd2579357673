"""A worker process: drives whatever saga is due until its parent goes away. Run as ``python -m`` by `crew`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from datetime import timedelta

from .. import SagaWorker
from .books import Books
from .database import open_engine, read_url
from .saga import orchestrator_on

ADDRESS = "SAGA_DEMO_DATABASE_URL"
"""The variable that holds the database's address: the command line of a process is for everybody to read."""

_AT_ONCE = 16
_LOOK = timedelta(milliseconds=200)


async def work(address: str) -> None:
    """Drive sagas until standard input ends."""
    engine, for_participants = (open_engine(read_url(address)) for _ in range(2))
    try:
        async with orchestrator_on(engine, Books(for_participants)) as orchestrator:
            worker = SagaWorker(orchestrator, poll_interval=_LOOK, concurrency=_AT_ONCE)
            _stop_at_end_of_input(worker)
            await worker.run()
    finally:
        await for_participants.dispose()
        await engine.dispose()


def _stop_at_end_of_input(worker: SagaWorker) -> None:
    """Stop the worker when its parent closes the pipe, or has died: on every platform, and leaving no orphans."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        # Not sys.stdin.read(): its lock, held by a thread that still waits, would disturb the interpreter's end.
        while os.read(sys.stdin.fileno(), 1):
            pass
        loop.call_soon_threadsafe(worker.stop)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    asyncio.run(work(os.environ[ADDRESS]))
