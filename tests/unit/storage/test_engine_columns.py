"""Columns of the user's that stand where the engine's belong: each works exactly, or is refused by its name."""
# ruff: noqa: RUF012 - SQLAlchemy wants its class attributes as they are

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, registry

from saga_orchestrator import SagaDefinitionError, SagaOrchestrator, SagaStateMixin, SagaStatus
from saga_orchestrator.storage.mixins import COLUMNS


class Naive(sa.TypeDecorator[datetime]):
    """A type of the user's own, that makes of a value what the engine has not written."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True


WRONG: dict[str, tuple[str, sa.Column[Any]]] = {
    "integer id": ("id", sa.Column(sa.Integer, primary_key=True)),
    "id that is a text": ("id", sa.Column(sa.Uuid(as_uuid=False), primary_key=True)),
    "id that is not the key": ("id", sa.Column(sa.Uuid, nullable=False)),
    "naive timestamp": ("created_at", sa.Column(sa.DateTime(), server_default=sa.func.now(), nullable=False)),
    "timestamp of a type of its own": ("created_at", sa.Column(Naive, server_default=sa.func.now(), nullable=False)),
    "onupdate": (
        "updated_at",
        sa.Column(sa.DateTime(timezone=True), server_default=sa.func.now(), onupdate=sa.func.now(), nullable=False),
    ),
    "server_onupdate": (
        "updated_at",
        sa.Column(
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            server_onupdate=sa.FetchedValue(),
            nullable=False,
        ),
    ),
    "timestamp without a server_default": ("updated_at", sa.Column(sa.DateTime(timezone=True), nullable=False)),
    "native enum": ("status", sa.Column(sa.Enum(SagaStatus, name="saga_status"), nullable=False)),
    "other statuses": ("status", sa.Column(sa.Enum("NEW", "OLD", native_enum=False, length=16), nullable=False)),
    "short text": ("aggregation_id", sa.Column(sa.String(64), nullable=False)),
    "text with another order": ("trace_id", sa.Column(sa.String(255, collation="NOCASE"), nullable=False)),
    "error of a limited length": ("last_error", sa.Column(sa.String(500))),
    "NOT NULL": ("deadline_at", sa.Column(sa.DateTime(timezone=True), nullable=False)),
    "NULL": ("saga_name", sa.Column(sa.String(255), nullable=True)),
    "small number": ("priority", sa.Column(sa.SmallInteger, server_default="0", nullable=False)),
    "default": ("priority", sa.Column(sa.Integer, default=5, server_default="0", nullable=False)),
    "server_default": ("revision", sa.Column(sa.Integer, server_default="1", nullable=False)),
    "generated server_default": ("awaiting", sa.Column(sa.String(255), sa.FetchedValue())),
    "shorter on PostgreSQL": (
        "aggregation_id",
        sa.Column(sa.String(255).with_variant(sa.String(10), "postgresql"), nullable=False),
    ),
    "another text on PostgreSQL": (
        "trace_id",
        sa.Column(sa.String(255).with_variant(postgresql.CITEXT(), "postgresql"), nullable=False),
    ),
    "another order on SQLite": (
        "idempotency_key",
        sa.Column(sa.String(255).with_variant(sa.String(255, collation="NOCASE"), "sqlite")),
    ),
    "small on PostgreSQL": (
        "revision",
        sa.Column(sa.Integer().with_variant(sa.SmallInteger(), "postgresql"), server_default="0", nullable=False),
    ),
    "error of a limited length on PostgreSQL": (
        "last_error",
        sa.Column(sa.Text().with_variant(sa.String(200), "postgresql")),
    ),
    "computed": ("priority", sa.Column(sa.Integer, sa.Computed("1"), nullable=False)),
    "identity": ("revision", sa.Column(sa.Integer, sa.Identity(), nullable=False)),
    "an array": ("progress", sa.Column(postgresql.ARRAY(sa.Integer))),
    "a type that no database has": ("context", sa.Column(sa.types.NullType(), nullable=False)),
    "another name in the table": ("state", sa.Column("saga_state", sa.JSON, nullable=False)),
}


def base_with(name: str, column: sa.Column[Any]) -> type[DeclarativeBase]:
    """Return a project's base that gives each of its tables a column of this name."""
    return type("Base", (DeclarativeBase,), {name: column})


@pytest.mark.parametrize("kind", WRONG)
def test_a_column_that_the_engine_could_not_live_with_is_refused_when_the_class_is_mapped(kind: str) -> None:
    """The message names the column and the cure: and the cure works."""
    name, column = WRONG[kind]
    base: Any = base_with(name, column)
    with pytest.raises(
        SagaDefinitionError, match=rf"OrderSaga.*{name}.*class OrderSaga\(SagaStateMixin, Base\)|id alone"
    ):

        class OrderSaga(base, SagaStateMixin):
            __tablename__ = "order_saga"

    class Cured(SagaStateMixin, base):
        __tablename__ = "cured_saga"

    assert repr(Cured.__table__.c[name].type) == repr(COLUMNS.c[name].type)


@pytest.mark.parametrize("kind", WRONG)
def test_so_is_one_in_the_body_of_the_class(kind: str) -> None:
    """Then it is to be taken out of there."""
    name, column = WRONG[kind]

    class Base(DeclarativeBase):
        pass

    with pytest.raises(SagaDefinitionError, match=rf"OrderSaga.*{name}.*take it out of OrderSaga|id alone"):
        type("OrderSaga", (Base, SagaStateMixin), {"__tablename__": "order_saga", name: column})


class CommonBase(DeclarativeBase):
    """What many projects begin with."""

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, default=uuid.uuid4, server_default=sa.text("gen_random_uuid()")
    )
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), default=lambda: datetime.now(UTC))
    updated_at: Mapped[datetime] = mapped_column(
        sa.DateTime(timezone=True), default=lambda: datetime.now(UTC), server_default=sa.text("CURRENT_TIMESTAMP")
    )
    aggregation_id: Mapped[str] = mapped_column(sa.Text, sa.ForeignKey("orders.id"), index=True)
    priority: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    status: Mapped[SagaStatus] = mapped_column(sa.Enum(SagaStatus, native_enum=False, length=16))


def test_columns_that_mean_the_same_get_the_engines_types() -> None:
    """So they are read as the engine writes them, on every database; foreign keys and indexes are the user's."""

    class OrderSaga(CommonBase, SagaStateMixin):
        __tablename__ = "order_saga"

    table = OrderSaga.__table__
    for name in ("id", "created_at", "updated_at", "status"):
        assert repr(table.c[name].type) == repr(COLUMNS.c[name].type)
        assert table.c[name].default is None, "the engine gives it, or the database does"
    assert table.c.aggregation_id.foreign_keys
    assert {"ix_order_saga_aggregation_id", "ix_order_saga_due"} <= {str(index.name) for index in table.indexes}


def test_a_table_that_is_given_needs_the_mixins_columns() -> None:
    """A copy of another saga's table has them, and gets its companions."""
    metadata = sa.MetaData()
    whole = COLUMNS.to_metadata(metadata, name="whole_saga")
    part = sa.Table("part_saga", metadata, sa.Column("id", sa.Uuid, primary_key=True))

    class Base(DeclarativeBase):
        pass

    Base.metadata = metadata

    class Whole(Base, SagaStateMixin):
        __table__ = whole

    assert "whole_saga_history" in metadata.tables
    with pytest.raises(ArgumentError, match="aggregation_id"):

        class Part(Base, SagaStateMixin):
            __table__ = part


def test_an_imperative_mapping_needs_them_too() -> None:
    """It was an AttributeError of one of them."""
    mapped = registry()

    class OrderSaga(SagaStateMixin):
        pass

    table = sa.Table("order_saga", mapped.metadata, sa.Column("id", sa.Uuid, primary_key=True))
    with pytest.raises(SagaDefinitionError, match="OrderSaga has no column 'aggregation_id' in the table 'order_saga'"):
        mapped.map_imperatively(OrderSaga, table)


def prefixed(base: Any) -> None:
    class OrderSaga(base, SagaStateMixin):
        __tablename__ = "order_saga"
        __mapper_args__ = {"column_prefix": "_"}


def renamed(base: Any) -> None:
    mapped = registry(metadata=base.metadata)

    class OrderSaga(SagaStateMixin):
        pass

    table = COLUMNS.to_metadata(base.metadata, name="order_saga")
    mapped.map_imperatively(OrderSaga, table, properties={"state_of_it": table.c.state})


def left_out(base: Any) -> None:
    mapped = registry(metadata=base.metadata)

    class OrderSaga(SagaStateMixin):
        pass

    table = COLUMNS.to_metadata(base.metadata, name="order_saga")
    mapped.map_imperatively(OrderSaga, table, exclude_properties=["state"])


def hidden(base: Any) -> None:
    class OrderSaga(base, SagaStateMixin):
        __tablename__ = "order_saga"

        @property
        def state(self) -> str:  # type: ignore[override]
            return ""


def of_two_tables(base: Any) -> None:
    class Order(base):
        __tablename__ = "orders"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)

    class OrderSaga(Order, SagaStateMixin):
        __mapper_args__ = {"polymorphic_identity": "saga"}


def of_a_join(base: Any) -> None:
    mapped = registry(metadata=base.metadata)

    class OrderSaga(SagaStateMixin):
        pass

    head = COLUMNS.to_metadata(base.metadata, name="order_saga")
    other = sa.Table("other", base.metadata, sa.Column("id", sa.ForeignKey(head.c.id), primary_key=True))
    joined = head.join(other)
    mapped.map_imperatively(OrderSaga, joined, properties={"id": column_property(head.c.id, other.c.id)})


def with_another_key(base: Any) -> None:
    class OrderSaga(base, SagaStateMixin):
        __tablename__ = "order_saga"
        tenant: Mapped[int] = mapped_column(primary_key=True)


def beside_a_history(base: Any) -> None:
    sa.Table("order_saga_history", base.metadata, sa.Column("id", sa.Uuid, primary_key=True))

    class OrderSaga(base, SagaStateMixin):
        __tablename__ = "order_saga"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (prefixed, "maps the engine's column 'id' as '_id'"),
        (renamed, "maps the engine's column 'state' as 'state_of_it'"),
        (left_out, "does not map the engine's column 'state'"),
        (hidden, "has no column 'state'"),
        (of_two_tables, "shares the table of Order, whose rows are no sagas"),
        (of_a_join, "is mapped to Join; a saga is a row of one table"),
        (with_another_key, r"has the primary key \(.*\), and a saga is found by its id alone"),
        (beside_a_history, "The table 'order_saga_history' is one of the application's"),
    ],
)
def test_a_model_that_calls_the_engines_columns_otherwise_is_refused(model: Callable[[Any], None], said: str) -> None:
    """The engine would write past it."""
    with pytest.raises(SagaDefinitionError, match=said):
        model(type("Base", (DeclarativeBase,), {}))


class KindsBase(DeclarativeBase):
    """A base for a hierarchy of sagas."""


class AnySaga(KindsBase, SagaStateMixin):
    """The base of a hierarchy in one table."""

    __tablename__ = "any_saga"
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "any"}


class Refund(AnySaga):
    """A part of it, that nobody but its author's `values` could tell from the others."""

    __mapper_args__ = {"polymorphic_identity": "refund"}


class Unmapped(KindsBase, SagaStateMixin):
    """What is only shared."""

    __abstract__ = True


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            Refund,
            r"Refund, which shares a table with AnySaga.*'kind'.*Give model_class=AnySaga.*values={'kind': 'refund'}",
        ),
        (Unmapped, "model_class is Unmapped, which is not mapped"),
    ],
)
def test_an_orchestrator_is_for_a_table_and_not_for_a_part_of_it(model: Any, said: str) -> None:
    """The engine does not write the discriminator, so that nobody would find a saga of such a part again."""
    sessions = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///unused.db"))
    with pytest.raises(SagaDefinitionError, match=said):
        SagaOrchestrator(model_class=model, session_maker=sessions)
    SagaOrchestrator(model_class=AnySaga, session_maker=sessions)


BREAKABLE: list[tuple[str, list[Any]]] = [
    ("unique key on trace_id", [sa.UniqueConstraint("trace_id")]),
    ("unique key on lease_owner", [sa.Index("ux_owner", "lease_owner", unique=True)]),
    ("unique key on saga_name, parent_id", [sa.UniqueConstraint("saga_name", "parent_id")]),
    ("foreign key on parent_id", [sa.ForeignKeyConstraint(["parent_id"], ["order_saga.id"])]),
    (
        "foreign key with CASCADE on aggregation_id",
        [sa.ForeignKeyConstraint(["aggregation_id"], ["orders.id"], ondelete="CASCADE")],
    ),
    ("check on retry_counter", [sa.CheckConstraint("retry_counter < 3")]),
    ("check on status", [sa.CheckConstraint("tenant IS NULL OR status <> 'STUCK'", name="no_trouble")]),
]
HARMLESS: list[list[Any]] = [
    [sa.UniqueConstraint("tenant", "aggregation_id")],
    [sa.UniqueConstraint("id", "saga_name")],
    [sa.Index("ux_tenant", "tenant", unique=True)],
    [sa.ForeignKeyConstraint(["aggregation_id"], ["orders.id"], ondelete="RESTRICT")],
    [sa.CheckConstraint("priority >= 0 AND tenant <> 'status'")],
    [sa.Index("ix_owner", "lease_owner")],
]


def saga_with(*arguments: Any) -> Any:
    """Return a saga model with these arguments of its table, and a column of its own."""

    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"
        __table_args__ = arguments
        tenant: Mapped[str | None]

    return OrderSaga


@pytest.mark.parametrize(("said", "arguments"), BREAKABLE, ids=[case[0] for case in BREAKABLE])
def test_a_constraint_that_the_engine_could_break_is_refused_when_the_class_is_mapped(
    said: str, arguments: list[Any]
) -> None:
    """Otherwise a step would have acted by the time at which its outcome cannot be kept."""
    with pytest.raises(SagaDefinitionError, match=rf"OrderSaga has a {said}, which the engine writes.*of your own"):
        saga_with(*arguments)


def test_so_is_a_unique_column_of_the_engines() -> None:
    """A column says it in its own way."""

    class Base(DeclarativeBase):
        pass

    with pytest.raises(SagaDefinitionError, match="unique key on trace_id"):

        class OrderSaga(Base, SagaStateMixin):
            __tablename__ = "order_saga"
            trace_id: Mapped[str] = mapped_column(sa.String(255), unique=True)


@pytest.mark.parametrize("arguments", HARMLESS)
def test_a_constraint_of_the_users_own_stays(arguments: list[Any]) -> None:
    """What has a column of the user's in it, or is written with the start alone, is the user's to say."""
    table = saga_with(*arguments).__table__
    assert set(arguments) <= {*table.constraints, *table.indexes}
