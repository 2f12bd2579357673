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
            have their output: counted after every run, by the parent.
    """

    name: str
    module: str
    database: str
    label: str
    audit: str


def _audit(head: str, past: str) -> str:
    return f"""
        SELECT (SELECT count(*) FROM {head} WHERE status = 'COMPLETED') AS sagas,
               count(*) AS steps,
               sum(CASE WHEN output IS NOT NULL AND step_id IS NOT NULL THEN 1 ELSE 0 END) AS outputs
        FROM {past} WHERE phase = 'EXECUTE' AND status = 'SUCCESS'"""


_DBOS_AUDIT = """
    SELECT (SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS') AS sagas,
           count(*) AS steps,
           count(output) AS outputs
    FROM dbos.operation_outputs WHERE error IS NULL"""

ENTRANTS = (
    Entrant(
        "ours",
        "benches.ours",
        "postgresql",
        "this library",
        _audit("bench_saga", "bench_saga_history"),
    ),
    Entrant(
        "floor-commit",
        "benches.floor_commit",
        "postgresql",
        "raw asyncpg, one commit per step",
        _audit("floor_saga", "floor_saga_history"),
    ),
    Entrant(
        "floor-batch",
        "benches.floor_batch",
        "postgresql",
        "raw asyncpg, batched commits",
        _audit("floor_saga", "floor_saga_history"),
    ),
    Entrant(
        "pso",
        "benches.peer_pso",
        "postgresql",
        "python-saga-orchestrator",
        _audit("peer_saga", "peer_saga_history"),
    ),
    Entrant(
        "dbos",
        "benches.peer_dbos",
        "postgresql",
        "DBOS",
        _DBOS_AUDIT,
    ),
    Entrant(
        "ours-sqlite",
        "benches.ours",
        "sqlite",
        "this library",
        _audit("bench_saga", "bench_saga_history"),
    ),
    Entrant(
        "floor-sqlite",
        "benches.floor_sqlite",
        "sqlite",
        "raw sqlite3 in a thread, batched commits",
        _audit("floor_saga", "floor_saga_history"),
    ),
)
PEERS = ("pso", "dbos")
POSTGRESQL_CASES = tuple(Case(steps, in_flight) for steps in STEPS for in_flight in IN_FLIGHT)
SQLITE_CASES = (Case(3, 256), Case(10, 256))


def order(number: int) -> dict[str, object]:
    """Return the initial data of a saga: the same for every contender."""
    return {"order_id": f"order-{number}", "sku": "sku-4711", "amount": 4200}


def reservation(order_id: str) -> dict[str, object]:
    """Return what a trivial step answers: the same for every contender."""
    return {"reference": f"ref-{order_id}", "accepted": True}
