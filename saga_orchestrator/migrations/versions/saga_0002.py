"""Keep payloads byte for byte."""

from __future__ import annotations

from alembic import op
from saga_orchestrator.migrations import branch

revision = "saga_0002"
down_revision = "saga_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables from version 1 to version 2."""
    branch.upgrade_all(op, since=1, to=2)


def downgrade() -> None:
    """Bring the tables back to version 1."""
    branch.downgrade_all(op, since=2, to=1)
