"""Create the tables of the order saga, with a column of our own."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op
from saga_orchestrator import migrations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrations.upgrade(op, since=0, to=2, table="order_saga")
    op.add_column("order_saga", sa.Column("customer", sa.String(100)))


def downgrade() -> None:
    migrations.downgrade(op, since=2, to=0, table="order_saga")
