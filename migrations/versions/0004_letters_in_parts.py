"""Store large inbox messages in parts, like all other payloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from blazen_trio._stores.sql.idempotent_ops import Again

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_MYSQL = {"engine": "InnoDB", "charset": "utf8mb4"}
_OPTIONS = {
    f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _MYSQL.items()
}


def upgrade(op: Operations) -> None:
    """Create the table of the parts."""
    Again(op).create_table(
        "blazen_inbox_part",
        sa.Column("run_no", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("mail_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("part", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("format", sa.SmallInteger, nullable=False),
        sa.Column(
            "data",
            sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("run_no", "mail_id", "part", name="pk_blazen_inbox_part"),
        **_OPTIONS,
    )


def downgrade(op: Operations) -> None:
    """Drop the table."""
    Again(op).drop_table("blazen_inbox_part")
