"""`SagaStateMixin`: the saga's head on the user's own model, and the companion tables that mapping it creates.

Mapping ``class OrderSaga(Base, SagaStateMixin)`` adds the companion tables (see `companions`) to the same metadata, and
the constraints and indexes to the user's table, so `metadata.create_all` and Alembic's autogenerate see all of it.
Three constraints make wrong rows unrepresentable: an active saga that neither is due nor awaits anything, an unknown
status, and a second active saga for one `aggregation_id`.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    DDL,
    CheckConstraint,
    Column,
    ColumnDefault,
    Enum,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    event,
    func,
)
from sqlalchemy.orm import Mapped, Mapper, mapped_column, registry, relationship
from sqlalchemy.sql.elements import conv

from ..errors import SagaDefinitionError
from ..kernel.state import SagaStatus
from .columns import adopt_columns, check_attributes
from .companions import history_table, inbox_table, partial_index, route_table
from .constraints import check_constraints
from .types import ExactJson, Json, UtcDateTime

TERMINAL = "status IN ('COMPLETED', 'COMPENSATED', 'FAILED')"
ACTIVE = f"NOT ({TERMINAL})"
_STATUSES = ", ".join(f"'{status.value}'" for status in SagaStatus)
_NOW = func.now()
_LONGEST_NAME = 63 - len("_history")
"""PostgreSQL cuts longer names short without a word, and the companion's name would clash with the head's."""


class SagaStateMixin:
    """The head of a saga: small, and mostly not rewritten. Add columns and relationships of your own beside it.

    Only the engine writes these columns. `state` is the truth; `status`, `awaiting`, `deadline_at`,
    `current_step_index`, `retry_counter` are derived from it with every write, to be queried and joined.

    Where the models are dataclasses (`MappedAsDataclass`), give the sagas a base of their own over the same registry:
    ``class SagaBase(DeclarativeBase): registry = Base.registry``.
    """

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    aggregation_id: Mapped[str] = mapped_column(String(255))
    trace_id: Mapped[str] = mapped_column(String(255))
    saga_name: Mapped[str] = mapped_column(String(255))
    definition_version: Mapped[int] = mapped_column(Integer, server_default="1")
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[SagaStatus] = mapped_column(Enum(SagaStatus, native_enum=False, length=16, create_constraint=False))
    """Where the saga stands; a `SagaStatus` value."""
    awaiting: Mapped[str | None] = mapped_column(String(255))
    """What the saga waits for (``retry``, ``operator``), or None."""
    current_step_index: Mapped[int] = mapped_column(Integer, server_default="0")
    step_execution_token: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    """The fence: only who holds this token may move the saga. Of a suspended saga, the token for `notify`."""
    revision: Mapped[int] = mapped_column(Integer, server_default="0")
    """Grows by one with every write; writes are compare-and-swap on it."""
    state: Mapped[dict[str, Any]] = mapped_column(Json)
    context: Mapped[dict[str, Any]] = mapped_column(ExactJson)
    """``initial_data``; never rewritten."""
    deadline_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When `run_due` must look at this saga again: its lease's end, or its timer. None: nothing is due by time."""
    lease_owner: Mapped[str | None] = mapped_column(String(255))
    retry_counter: Mapped[int] = mapped_column(Integer, server_default="0")
    last_error: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    parent_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    priority: Mapped[int] = mapped_column(Integer, server_default="0")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=_NOW)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    progress: Mapped[dict[str, Any] | None] = mapped_column(ExactJson(none_as_null=True))
    """How far the steps in flight say that they have come; it lags behind, and nothing is decided by it."""

    if TYPE_CHECKING:
        step_history: Mapped[list[Any]]
        """The saga's history rows, oldest first; read-only. Load it with ``selectinload``."""


def _as_mapped() -> Table:
    """Return the mixin's columns as a table of nobody's: what a model is held against."""
    own = registry()
    mapped: Any = own.mapped(type("_Model", (SagaStateMixin,), {"__tablename__": "saga"}))
    table: Table = mapped.__table__
    own.dispose()
    return table


COLUMNS = _as_mapped()
"""The engine's columns, as it needs them. Made before the listeners below are, so it has no companions."""


def _constrain(head: Table) -> None:
    """Add what makes wrong rows unrepresentable, and the two indexes that recovery and identity need."""
    name = head.name
    head.append_constraint(CheckConstraint(f"status IN ({_STATUSES})", name=conv(f"ck_{name}_status")))
    never_stranded = f"{TERMINAL} OR deadline_at IS NOT NULL OR awaiting IS NOT NULL"
    head.append_constraint(CheckConstraint(never_stranded, name=conv(f"ck_{name}_never_stranded")))
    partial_index(f"ix_{name}_due", head.c.deadline_at, where="deadline_at IS NOT NULL")
    partial_index(f"uq_{name}_active_aggregation", head.c.aggregation_id, where=ACTIVE, unique=True)
    partial_index(
        f"uq_{name}_idempotency",
        head.c.saga_name,
        head.c.idempotency_key,
        where="idempotency_key IS NOT NULL",
        unique=True,
    )
    _leave_room(head)


def _leave_room(head: Table) -> None:
    """Have PostgreSQL leave room in each page, so that a row's next version stays beside it (a HOT update)."""
    options = head.dialect_options["postgresql"]
    if "with" in options:  # since SQLAlchemy 2.1
        options["with"] = {"fillfactor": 70, **(options["with"] or {})}
        return
    later = DDL("ALTER TABLE %(fullname)s SET (fillfactor = 70)")  # type: ignore[no-untyped-call]
    event.listen(head, "after_create", later.execute_if(dialect="postgresql"))


def _equip(mapper: Mapper[Any], cls: type) -> None:
    """Give a freshly mapped saga model its companion tables."""
    head = mapper.local_table
    if mapper.inherits is not None:
        _refuse_second_table(mapper, cls)
    if not isinstance(head, Table):
        raise SagaDefinitionError(f"{cls.__name__} is mapped to {type(head).__name__}; a saga is a row of one table.")
    adopt_columns(cls, head, COLUMNS, SagaStateMixin)
    check_constraints(cls, head, COLUMNS)
    if mapper.inherits is not None:
        return
    if len(head.name.encode()) > _LONGEST_NAME:
        raise SagaDefinitionError(
            f"The table name {head.name!r} of {cls.__name__} is too long: with '_history' it is over the 63 bytes "
            f"that PostgreSQL allows. Use at most {_LONGEST_NAME}."
        )
    if f"ck_{head.name}_never_stranded" not in {constraint.name for constraint in head.constraints}:
        _constrain(head)
    for companion in (history_table, inbox_table, route_table):
        companion(head)


def _refuse_second_table(mapper: Mapper[Any], cls: type) -> None:
    """Refuse a subclass with a table of its own: the engine writes one row for a saga, so its own would be missing."""
    if mapper.inherits is not None and mapper.local_table is not mapper.inherits.local_table:
        raise SagaDefinitionError(
            f"{cls.__name__} gives a saga two tables, its own and that of {mapper.inherits.class_.__name__}, but a "
            "saga is one row. Share columns through a base with __abstract__ = True, put them on the saga's own table, "
            "or keep them in a table that refers to it."
        )
    if mapper.inherits is not None and not issubclass(mapper.inherits.class_, SagaStateMixin):
        raise SagaDefinitionError(
            f"{cls.__name__} shares the table of {mapper.inherits.class_.__name__}, whose rows are no sagas. "
            "Give it a base that is not mapped, and a table of its own."
        )


def _finish(mapper: Mapper[Any], cls: type) -> None:
    """Hold the attributes of a mapped model against the columns, and make its history readable as `step_history`."""
    check_attributes(mapper, COLUMNS)
    _fill_discriminator(mapper)
    if mapper.inherits is not None or mapper.has_property("step_history"):
        return
    past = history_table(mapper.local_table)  # type: ignore[arg-type]
    name = f"_{cls.__name__}History"  # the other name is free for a class of the user's
    entry = type(name, (), {"__module__": cls.__module__})
    mapper.registry.map_imperatively(entry, past)
    rows = relationship(entry, viewonly=True, order_by=past.c.seq)
    mapper.add_property("step_history", rows)


def _fill_discriminator(mapper: Mapper[Any]) -> None:
    """Have a saga that is started for the base of a hierarchy be of the base's identity, unless `values=` says more."""
    column, identity = mapper.polymorphic_on, mapper.polymorphic_identity
    is_own = isinstance(column, Column) and column.name not in COLUMNS.c
    if is_own and mapper.inherits is None and identity is not None and column.default is None:  # type: ignore[union-attr]
        column.default = ColumnDefault(identity)  # type: ignore[union-attr]


event.listen(SagaStateMixin, "instrument_class", _equip, propagate=True)
event.listen(SagaStateMixin, "after_mapper_constructed", _finish, propagate=True)
