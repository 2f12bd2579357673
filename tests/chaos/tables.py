"""The tables of the application under chaos: those of its sagas, and what it writes beside them."""

from __future__ import annotations

import uuid

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from saga_orchestrator import SagaStateMixin


class Base(DeclarativeBase):
    """The application's tables."""


class ChaosSaga(Base, SagaStateMixin):
    """The sagas."""

    __tablename__ = "chaos_saga"


class BusinessRow(Base):
    """What the application writes in the transaction that starts a saga: one is there if and only if the other is."""

    __tablename__ = "chaos_business"
    number: Mapped[str] = mapped_column(String(80), primary_key=True)
    saga_id: Mapped[uuid.UUID] = mapped_column()


class Booking(Base):
    """What a transactional step writes: one is there if and only if the saga says that the step stands."""

    __tablename__ = "chaos_booking"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    saga_id: Mapped[uuid.UUID] = mapped_column()
