"""What a saga of trivial steps has to write, without any engine: the values of its rows, step by step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from .cases import order, reservation
from .floor_schema import FINGERPRINT, new_id

LEASE = timedelta(seconds=30)
to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@dataclass(slots=True)
class FloorSaga:
    """One saga's head, held in memory as an engine that owns a saga holds it."""

    number: int
    steps: int
    id: UUID = field(default_factory=new_id)
    token: UUID = field(default_factory=uuid4)
    revision: int = 0

    def birth(self) -> tuple[object, ...]:
        """Return the row of the saga's birth, in the order of `BIRTH`."""
        now = datetime.now(UTC)
        context = to_json({"initial_data": order(self.number)})
        aggregation_id = f"order-{self.number}"
        return (self.id, aggregation_id, str(uuid4()), self._state(0), context, self.token, now + LEASE, now)

    def step(self) -> tuple[object, ...]:
        """Run the next step, and return what its commit writes: the values of `MOVE`, then those of `PAST`."""
        number, self.revision = self.revision, self.revision + 1
        started_at = datetime.now(UTC)
        given = order(self.number)
        answer = reservation(f"order-{self.number}")
        now = datetime.now(UTC)
        ends = self.revision == self.steps
        return (
            self.id,
            number,
            self.token,
            self._state(self.revision),
            self.revision,
            now,
            ends,
            f"step_{number}",
            to_json(given),
            to_json(answer),
            started_at,
        )

    def _state(self, done: int) -> str:
        steps: dict[str, object] = {f"step_{i}": "S" for i in range(done)}
        if done < self.steps:
            steps[f"step_{done}"] = ["R", 1]
        return to_json({"v": 1, "c": "FORWARD", "n": done, "s": steps})


BIRTH = (
    ("id", "uuid"),
    ("aggregation_id", "varchar"),
    ("trace_id", "varchar"),
    ("state", "text"),
    ("context", "text"),
    ("token", "uuid"),
    ("deadline_at", "timestamptz"),
    ("now", "timestamptz"),
)
STEP = (
    ("id", "uuid"),
    ("revision", "int"),
    ("token", "uuid"),
    ("state", "text"),
    ("current", "int"),
    ("now", "timestamptz"),
    ("ends", "bool"),
    ("step_id", "varchar"),
    ("input", "text"),
    ("output", "text"),
    ("started_at", "timestamptz"),
)
_HEAD = (
    "id, aggregation_id, trace_id, saga_name, fingerprint, status, step_execution_token, state, context, deadline_at,"
    " lease_owner, created_at, updated_at"
)
_PAST = "saga_id, seq, timestamp, phase, status, step_id, step_name, attempt, token, input, output, skipped, started_at"
_MOVED = """
    revision = s.revision + 1, state = m.state::jsonb, current_step_index = m.current, updated_at = m.now,
    status = CASE WHEN m.ends THEN 'COMPLETED' ELSE s.status END,
    step_execution_token = CASE WHEN m.ends THEN NULL ELSE s.step_execution_token END,
    lease_owner = CASE WHEN m.ends THEN NULL ELSE s.lease_owner END,
    deadline_at = CASE WHEN m.ends THEN NULL ELSE s.deadline_at END,
    finished_at = CASE WHEN m.ends THEN m.now ELSE NULL END"""


def _columns(columns: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(name for name, _ in columns)


def _rows(columns: tuple[tuple[str, str], ...], start: int = 1) -> str:
    parameters = ", ".join(f"${start + i}::{kind}" for i, (_, kind) in enumerate(columns))
    return f"(VALUES ({parameters}))"


def _arrays(columns: tuple[tuple[str, str], ...], start: int = 1) -> str:
    return f"unnest({', '.join(f'${start + i}::{kind}[]' for i, (_, kind) in enumerate(columns))})"


def _insert_births(source: str) -> str:
    return f"""
    INSERT INTO floor_saga ({_HEAD})
    SELECT id, aggregation_id, trace_id, 'trivial', '{FINGERPRINT}', 'RUNNING', token, state::jsonb, context::json,
           deadline_at, 'floor', now, now
    FROM {source} AS b({_columns(BIRTH)}) ON CONFLICT DO NOTHING RETURNING id"""


def _write_steps(given: str) -> str:
    return f"""
    m AS MATERIALIZED ({given}),
    moved AS (
        UPDATE floor_saga AS s SET {_MOVED}
        FROM m WHERE s.id = m.id AND s.revision = m.revision AND s.step_execution_token = m.token
        RETURNING s.id
    ),
    past AS (
        INSERT INTO floor_saga_history ({_PAST})
        SELECT m.id, m.current, m.now, 'EXECUTE', 'SUCCESS', m.step_id, 'Trivial', 1, m.token, m.input::json,
               m.output::json, false, m.started_at
        FROM m JOIN moved ON moved.id = m.id
    )"""


_ONE = f"SELECT * FROM {_rows(STEP)} AS m({_columns(STEP)})"
_LOCKED = f"""
    SELECT m.* FROM {_arrays(STEP)} AS m({_columns(STEP)}) JOIN floor_saga AS s ON s.id = m.id
    ORDER BY s.id FOR UPDATE OF s"""
"""The rows of a batch are locked in the order of their ids, so that two batches can never deadlock. What locks carries
the values on: joining the locked ids to the values and the table once more takes more than twice as long."""

ONE_BIRTH = _insert_births(_rows(BIRTH))
ONE_STEP = f"WITH {_write_steps(_ONE)} SELECT id FROM moved"
BATCH = f"""
WITH {_write_steps(_LOCKED)},
born AS ({_insert_births(_arrays(BIRTH, len(STEP) + 1))})
SELECT id FROM moved UNION ALL SELECT id FROM born"""
