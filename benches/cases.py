"""What is measured: the cases, the contenders, and the SQL that proves that a contender has done the work.

The contenders' own modules are imported only in their own processes; what the parent must know of them stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = (3, 10)
IN_FLIGHT = (1, 32, 256)


@dataclass(frozen=True, order=True)
class Case:
    """One cell of the table: how many steps a saga has, and how many sagas are in flight."""

    steps: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.steps}x{self.in_flight}"


@dataclass(frozen=True)
class Entrant:
    """A contender, as the parent sees it.

    Attributes:
        audit: The SQL that returns how many sagas are completed, how many steps are recorded, and how many of those
            have their output: counted by the parent, before and after every run.
        in_flight: What it is measured at.
    """

    name: str
    label: str
    module: str
    audit: str
    database: str = "postgresql"
    in_flight: tuple[int, ...] = IN_FLIGHT

    def enters(self, case: Case) -> bool:
        return case.in_flight in self.in_flight


def _audit(head: str) -> str:
    return f"""
        SELECT (SELECT count(*) FROM {head} WHERE status = 'COMPLETED') AS sagas,
               count(*) AS steps, count(output) AS outputs
        FROM {head}_history WHERE phase = 'EXECUTE' AND status = 'SUCCESS'"""


_DBOS_AUDIT = """
    SELECT (SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS') AS sagas,
           count(*) AS steps, count(output) AS outputs
    FROM dbos.operation_outputs WHERE error IS NULL"""

ENTRANTS = (
    Entrant("ours", "this library", "benches.ours", _audit("bench_saga")),
    Entrant("floor-commit", "raw asyncpg, one commit per step", "benches.floor_commit", _audit("floor_saga")),
    Entrant("floor-batch", "raw asyncpg, batched commits", "benches.floor_batch", _audit("floor_saga")),
    Entrant("pso", "python-saga-orchestrator", "benches.peer_pso", _audit("peer_saga")),
    Entrant("dbos", "DBOS, tuned", "benches.peer_dbos", _DBOS_AUDIT),
    Entrant("dbos-default", "DBOS, as it comes", "benches.peer_dbos_default", _DBOS_AUDIT, in_flight=(1, 256)),
    Entrant("ours-sqlite", "this library", "benches.ours", _audit("bench_saga"), "sqlite"),
    Entrant("floor-sqlite", "raw sqlite3, batched commits", "benches.floor_sqlite", _audit("floor_saga"), "sqlite"),
)
TUNED = "tuned"
PEERS = {"as they come": ("pso", "dbos-default"), TUNED: ("pso", "dbos")}
CASES = {
    "postgresql": tuple(Case(steps, in_flight) for steps in STEPS for in_flight in IN_FLIGHT),
    "sqlite": tuple(Case(steps, 256) for steps in STEPS),
}


def order(number: int) -> dict[str, object]:
    """Return the initial data of a saga: the same for every contender."""
    return {"order_id": f"order-{number}", "sku": "sku-4711", "amount": 4200}


def reservation(order_id: str) -> dict[str, object]:
    """Return what a trivial step answers: the same for every contender."""
    return {"reference": f"ref-{order_id}", "accepted": True}
