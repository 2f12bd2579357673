"""`SagaStateMixin` on models of every shape: the names it gives, what it adds, and what it refuses."""
# ruff: noqa: RUF012 - SQLAlchemy wants its class attributes as they are

import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    configure_mappers,
    mapped_column,
    registry,
    relationship,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from saga_orchestrator import SagaDefinitionError, SagaStateMixin

CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
INDEXES = {"ix_order_saga_due", "uq_order_saga_active_aggregation", "uq_order_saga_idempotency"}
CHECKS = {"ck_order_saga_status", "ck_order_saga_never_stranded"}
KNOWS_STORAGE_OPTIONS = "with" in sa.Table("t", sa.MetaData()).dialect_options["postgresql"]


def ddl(table: sa.Table) -> str:
    """What is sent to PostgreSQL."""
    elements = [CreateTable(table), *(CreateIndex(index) for index in table.indexes)]
    return "\n".join(str(element.compile(dialect=postgresql.dialect())) for element in elements)


def tables_of(*heads: str) -> set[str]:
    """Return the tables that saga tables of these names are, with their companions."""
    return {f"{head}{suffix}" for head in heads for suffix in ("", "_history", "_inbox", "_route")}


def checks(table: sa.Table) -> set[str]:
    return {str(each.name) for each in table.constraints if isinstance(each, sa.CheckConstraint)}


def indexes(table: sa.Table) -> set[str]:
    return {str(index.name) for index in table.indexes}


def test_a_naming_convention_names_only_what_is_unnamed() -> None:
    """A convention with the table in every name does not put it in twice, and the keys follow it."""

    class Base(DeclarativeBase):
        metadata = sa.MetaData(naming_convention=CONVENTION)

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"
        __table_args__ = (sa.CheckConstraint("priority >= 0", name="priority"),)

    sent = ddl(OrderSaga.__table__)
    past = ddl(Base.metadata.tables["order_saga_history"])
    assert [sent.count(f"CONSTRAINT {name} CHECK") for name in (*CHECKS, "ck_order_saga_priority")] == [1, 1, 1]
    assert [sent.count(f"INDEX {name} ON") for name in INDEXES] == [1, 1, 1]
    assert "CONSTRAINT pk_order_saga PRIMARY KEY" in sent
    assert "CONSTRAINT fk_order_saga_history_saga_id_order_saga FOREIGN KEY" in past


def test_the_users_table_arguments_stay_beside_the_mixins() -> None:
    """Own indexes, constraints, comments and schema are kept; the history follows into the schema."""

    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"
        __table_args__ = (
            sa.Index("ix_tenant", "tenant"),
            sa.UniqueConstraint("tenant", "trace_id", name="uq_tenant"),
            {"schema": "sagas", "comment": "orders"},
        )
        tenant: Mapped[str]

    table = OrderSaga.__table__
    assert indexes(table) == {*INDEXES, "ix_tenant"}
    assert checks(table) == CHECKS
    assert (table.schema, table.comment) == ("sagas", "orders")
    assert "uq_tenant" in ddl(table)
    companions = {f"sagas.order_saga_{name}" for name in ("history", "inbox", "route")}
    assert set(Base.metadata.tables) == {"sagas.order_saga", *companions}


@pytest.mark.skipif(not KNOWS_STORAGE_OPTIONS, reason="SQLAlchemy 2.0 has no storage options for a table to say")
def test_the_users_storage_options_win() -> None:
    """A fillfactor of the user's own is not overwritten, and other options get ours beside them."""

    class Base(DeclarativeBase):
        pass

    class Own(Base, SagaStateMixin):
        __tablename__ = "own"
        __table_args__ = {"postgresql_with": {"fillfactor": 50}}

    class Other(Base, SagaStateMixin):
        __tablename__ = "other"
        __table_args__ = {"postgresql_with": {"autovacuum_enabled": "true"}}

    assert "WITH (fillfactor = 50)" in ddl(Own.__table__)
    assert "WITH (fillfactor = 70, autovacuum_enabled = true)" in ddl(Other.__table__)


def test_a_copied_table_is_still_a_whole_table() -> None:
    """Tools that copy tables, as Alembic does, find no option that SQLAlchemy does not know."""

    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"

    copied = OrderSaga.__table__.to_metadata(sa.MetaData())

    assert (checks(copied), indexes(copied)) == (CHECKS, INDEXES)


def test_upper_case_and_quotes_in_a_name_are_quoted_everywhere() -> None:
    """Any name that SQLAlchemy takes is taken."""

    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = 'Order "Sagas"'

    sent = ddl(OrderSaga.__table__)

    assert 'CREATE TABLE "Order ""Sagas"""' in sent
    assert 'CONSTRAINT "ck_Order ""Sagas""_never_stranded"' in sent
    assert 'INDEX "ix_Order ""Sagas""_due"' in sent


def test_a_long_name_is_shortened_where_the_database_needs_it() -> None:
    """Names of indexes over 63 bytes get a hash instead of being cut to the same name; a longer table is refused."""

    class Base(DeclarativeBase):
        pass

    class Longest(Base, SagaStateMixin):
        __tablename__ = "x" * 55

    sent = ddl(Longest.__table__)
    names = [line.split(" ON ")[0].split()[-1] for line in sent.splitlines() if "INDEX" in line]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 63
    with pytest.raises(SagaDefinitionError, match=r"too long.*Use at most 55"):

        class TooLong(Base, SagaStateMixin):
            __tablename__ = "y" * 56


def test_abstract_bases_give_each_model_its_own_tables() -> None:
    """What is shared is declared once, and every model has constraints, indexes and a history of its own."""

    class Base(DeclarativeBase):
        pass

    class TenantSaga(Base, SagaStateMixin):
        __abstract__ = True
        tenant: Mapped[str]

    class OrderSaga(TenantSaga):
        __tablename__ = "order_saga"

    class RefundSaga(TenantSaga):
        __tablename__ = "refund_saga"

    configure_mappers()
    assert set(Base.metadata.tables) == tables_of("order_saga", "refund_saga")
    assert checks(RefundSaga.__table__) == {"ck_refund_saga_status", "ck_refund_saga_never_stranded"}
    assert (checks(OrderSaga.__table__), indexes(OrderSaga.__table__)) == (CHECKS, INDEXES)
    assert "tenant" in RefundSaga.__table__.c


def test_single_table_inheritance_shares_the_tables() -> None:
    """A subclass without a table of its own adds columns, not constraints, and has the history too."""

    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "order"}

    class GiftSaga(OrderSaga):
        greeting: Mapped[str | None]
        __mapper_args__ = {"polymorphic_identity": "gift"}

    configure_mappers()
    assert set(Base.metadata.tables) == tables_of("order_saga")
    assert (checks(GiftSaga.__table__), indexes(GiftSaga.__table__)) == (CHECKS, INDEXES)
    assert GiftSaga.step_history.property is not None


def joined() -> None:
    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"

    class GiftSaga(OrderSaga):
        __tablename__ = "gift_saga"
        id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("order_saga.id"), primary_key=True)


def joined_to_a_stranger() -> None:
    class Base(DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        key: Mapped[int] = mapped_column(primary_key=True)

    class GiftSaga(Order, SagaStateMixin):
        __tablename__ = "gift_saga"
        key: Mapped[int] = mapped_column(sa.ForeignKey("orders.key"))


def concrete() -> None:
    class Base(DeclarativeBase):
        pass

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"

    class GiftSaga(OrderSaga):
        __tablename__ = "gift_saga"
        __mapper_args__ = {"concrete": True}
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


@pytest.mark.parametrize("models", [joined, joined_to_a_stranger, concrete])
def test_a_saga_over_two_tables_is_refused(models: Callable[[], None]) -> None:
    """The engine writes one row for a saga; the row in the second table would be missing, so this is said at once."""
    with pytest.raises(SagaDefinitionError, match="GiftSaga gives a saga two tables"):
        models()


def test_models_that_are_dataclasses_live_beside_sagas_that_are_not() -> None:
    """A base of its own over the same registry gives the saga the same metadata and relationships to dataclasses."""

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class SagaBase(DeclarativeBase):
        registry = Base.registry

    class OrderSaga(SagaBase, SagaStateMixin):
        __tablename__ = "order_saga"

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[str] = mapped_column(primary_key=True)
        saga: Mapped[OrderSaga | None] = relationship(
            default=None, viewonly=True, primaryjoin=lambda: sa.orm.foreign(OrderSaga.aggregation_id) == Order.id
        )

    Base.registry.configure()
    assert Order(id="1").saga is None
    assert set(Base.metadata.tables) == {*tables_of("order_saga"), "orders"}


def test_the_users_own_history_class_is_not_replaced() -> None:
    """A relationship that names it by its name finds it, not the mixin's history."""

    class Base(DeclarativeBase):
        pass

    class OrderSagaHistory(Base):
        __tablename__ = "own_history"
        id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("order_saga.id"), primary_key=True)

    class OrderSaga(Base, SagaStateMixin):
        __tablename__ = "order_saga"
        own_history = relationship("OrderSagaHistory")

    Base.registry.configure()
    assert OrderSaga.own_history.property.target.name == "own_history"
    assert OrderSaga.step_history.property.target.name == "order_saga_history"


def test_a_registry_without_a_base_will_do() -> None:
    """The mixin needs no declarative base, only a mapping."""
    mapped = registry()

    @mapped.mapped
    class OrderSaga(SagaStateMixin):
        __tablename__ = "order_saga"

    mapped.configure()
    assert set(mapped.metadata.tables) == tables_of("order_saga")
    assert (checks(OrderSaga.__table__), indexes(OrderSaga.__table__)) == (CHECKS, INDEXES)
