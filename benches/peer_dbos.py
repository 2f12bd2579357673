"""The peer DBOS 3.4: an asynchronous workflow of asynchronous steps, in a system database on the same PostgreSQL.

Tuned to what was fastest: its database calls run in a pool of threads without a bound, which with hundreds of
workflows in flight fight for the interpreter; four threads do twice as much. (`benches.peer_dbos_default` leaves it as
it comes.) Workflows awaited where they are started, or started with `start_workflow_async`, or plain functions in
threads of one's own, and a pool of 4 or of 20 connections: none of that made a difference.
"""

from __future__ import annotations

from dbos import DBOS, DBOSConfig

from .cases import order, reservation
from .contender import main

THREADS = 4


@DBOS.step()
async def trivial(given: dict[str, object]) -> dict[str, object]:
    return reservation(str(given["order_id"]))


@DBOS.workflow()
async def workflow(initial: dict[str, object], steps: int) -> None:
    for _ in range(steps):
        await trivial(initial)


class Dbos:
    """Awaits each workflow where it was started: no queue between, and nobody polls for a result."""

    def __init__(self, threads: int | None = THREADS) -> None:
        self._threads = threads

    async def open(self, url: str) -> None:
        config: DBOSConfig = {
            "name": "benchmark",
            "system_database_url": url.replace("postgresql://", "postgresql+psycopg://"),
            "log_level": "ERROR",
            "max_executor_threads": self._threads,
        }
        DBOS(config=config)
        DBOS.launch()

    async def saga(self, number: int, steps: int) -> None:
        await workflow(order(number), steps)

    async def close(self) -> None:
        DBOS.destroy()


if __name__ == "__main__":
    main(Dbos)
