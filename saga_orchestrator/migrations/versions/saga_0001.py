"""Create the saga tables: the head of a saga, and its history."""

from __future__ import annotations

from alembic import op
from saga_orchestrator.migrations import branch

revision = "saga_0001"
down_revision = None
branch_labels = ("saga",)
depends_on = None


def upgrade() -> None:
    """Bring the tables from nothing to version 1."""
    branch.upgrade_all(op, since=0, to=1)


def downgrade() -> None:
    """Drop the tables, with every saga in them."""
    branch.downgrade_all(op, since=1, to=0)
