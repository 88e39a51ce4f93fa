"""Add the columns by which workers find runs: when to wake one, and how often its drivers died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from blazen_trio._stores.sql.idempotent_ops import Again

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_QUEUED, _RUNNING, _WAITING = 1, 2, 4


def upgrade(op: Operations) -> None:
    """Add the columns. Unfinished runs without a driver become due at once for any worker."""
    again = Again(op)
    again.add_columns(
        "blazen_run",
        sa.Column("wake", sa.BigInteger, nullable=True),
        sa.Column("hold", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    )
    again.create_index("ix_blazen_run_workflow_wake", "blazen_run", ["workflow", "wake"])
    runs = sa.table(
        "blazen_run",
        sa.column("wake", sa.BigInteger),
        sa.column("updated", sa.BigInteger),
        sa.column("owner", sa.BigInteger),
        sa.column("status", sa.SmallInteger),
    )
    unfinished = runs.c.owner.is_(None) & runs.c.status.in_([_QUEUED, _RUNNING, _WAITING])
    op.execute(sa.update(runs).where(unfinished).values(wake=runs.c.updated))


def downgrade(op: Operations) -> None:
    """Drop the columns."""
    again = Again(op)
    again.drop_index("ix_blazen_run_workflow_wake", "blazen_run")
    again.drop_columns("blazen_run", "crashes", "hold", "wake")
