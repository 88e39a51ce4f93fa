"""What workers need to know of a run that nobody drives: when it can go on, and how often it took its driver down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_QUEUED, _RUNNING, _WAITING = 1, 2, 4


def upgrade() -> None:
    """Add the columns; runs that nobody drives are looked at by the first worker that comes."""
    with op.batch_alter_table("blazen_run") as table:
        table.add_column(sa.Column("wake", sa.BigInteger, nullable=True))
        table.add_column(sa.Column("hold", sa.BigInteger, nullable=False, server_default="0"))
        table.add_column(sa.Column("crashes", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_blazen_run_workflow_wake", "blazen_run", ["workflow", "wake"])
    runs = sa.table(
        "blazen_run",
        sa.column("wake", sa.BigInteger),
        sa.column("updated", sa.BigInteger),
        sa.column("owner", sa.BigInteger),
        sa.column("status", sa.SmallInteger),
    )
    unfinished = runs.c.owner.is_(None) & runs.c.status.in_([_QUEUED, _RUNNING, _WAITING])
    op.execute(sa.update(runs).where(unfinished).values(wake=runs.c.updated))


def downgrade() -> None:
    """Take them away."""
    op.drop_index("ix_blazen_run_workflow_wake", table_name="blazen_run")
    with op.batch_alter_table("blazen_run") as table:
        table.drop_column("crashes")
        table.drop_column("hold")
        table.drop_column("wake")
