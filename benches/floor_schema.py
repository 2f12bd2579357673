"""The floors' tables: the shape of this library's, written out: a floor writes the same rows into the same indexes.

`audit.same_shape` compares the two before anything is measured. The columns that a floor leaves at NULL (errors, keys,
actors) are there too, because a row's width is part of its cost.
"""

from __future__ import annotations

import os
import time
from uuid import UUID

HEAD = """
CREATE TABLE floor_saga (
    id {uuid} PRIMARY KEY,
    aggregation_id varchar(255) NOT NULL,
    trace_id varchar(255) NOT NULL,
    saga_name varchar(255) NOT NULL,
    definition_version integer NOT NULL DEFAULT 1,
    fingerprint varchar(64) NOT NULL,
    status varchar(16) NOT NULL,
    awaiting varchar(255),
    current_step_index integer NOT NULL DEFAULT 0,
    step_execution_token {uuid},
    revision integer NOT NULL DEFAULT 0,
    state {json} NOT NULL,
    context {exact} NOT NULL,
    deadline_at {time},
    lease_owner varchar(255),
    retry_counter integer NOT NULL DEFAULT 0,
    last_error text,
    idempotency_key varchar(255),
    parent_id {uuid},
    priority integer NOT NULL DEFAULT 0,
    created_at {time} NOT NULL,
    updated_at {time} NOT NULL,
    finished_at {time},
    progress {exact},
    CHECK (status IN ('RUNNING', 'SUSPENDED', 'COMPENSATING', 'STUCK', 'COMPLETED', 'COMPENSATED', 'FAILED')),
    CHECK (status IN ('COMPLETED', 'COMPENSATED', 'FAILED') OR deadline_at IS NOT NULL OR awaiting IS NOT NULL)
)"""
PAST = """
CREATE TABLE floor_saga_history (
    saga_id {uuid} NOT NULL REFERENCES floor_saga (id) ON DELETE CASCADE,
    seq integer NOT NULL,
    timestamp {time} NOT NULL,
    phase varchar(16) NOT NULL,
    status varchar(16) NOT NULL,
    step_id varchar(255) NOT NULL,
    step_name varchar(255) NOT NULL,
    attempt integer NOT NULL,
    token {uuid},
    input {exact},
    output {exact},
    error text,
    skipped boolean NOT NULL DEFAULT false,
    actor varchar(255),
    reason text,
    started_at {time},
    PRIMARY KEY (saga_id, seq)
)"""
INDEXES = (
    "CREATE INDEX floor_due ON floor_saga (deadline_at) WHERE deadline_at IS NOT NULL",
    (
        "CREATE UNIQUE INDEX floor_active ON floor_saga (aggregation_id)"
        " WHERE NOT (status IN ('COMPLETED', 'COMPENSATED', 'FAILED'))"
    ),
    "CREATE UNIQUE INDEX floor_key ON floor_saga (saga_name, idempotency_key) WHERE idempotency_key IS NOT NULL",
)
FINGERPRINT = "0123456789abcdef" * 4


def postgresql() -> tuple[str, ...]:
    """Return the statements that create the tables in PostgreSQL."""
    types = {"uuid": "uuid", "json": "jsonb", "exact": "json", "time": "timestamptz"}
    return (HEAD.format(**types) + " WITH (fillfactor = 70)", PAST.format(**types), *INDEXES)


def sqlite() -> tuple[str, ...]:
    """Return the statements that create the tables in SQLite."""
    types = {"uuid": "char(32)", "json": "text", "exact": "text", "time": "datetime"}
    return (HEAD.format(**types), PAST.format(**types), *INDEXES)


def new_id() -> UUID:
    """Return a time-ordered id (UUIDv7), as this library uses them: new keys go to the end of the index."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)
