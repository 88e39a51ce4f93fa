"""A list of the open questions of each run, so that an answer does not have to read the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from blazen_trio._stores.sql.idempotent_ops import Again

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MYSQL = {"engine": "InnoDB", "charset": "utf8mb4"}
_OPTIONS = {
    f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _MYSQL.items()
}


def upgrade(op: Operations) -> None:
    """Create its table, and the column that says which runs are listed.

    None is: the questions are in the journals. The next driver of a run lists them.
    """
    again = Again(op)
    again.create_table(
        "blazen_question",
        sa.Column("run_no", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column(
            "digest",
            sa.String(255).with_variant(
                mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
            ),
            nullable=False,
        ),
        sa.Column("question_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("format", sa.SmallInteger, nullable=False),
        sa.Column(
            "data",
            sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("run_no", "digest", "question_id", name="pk_blazen_question"),
        **_OPTIONS,
    )
    again.add_columns("blazen_run", sa.Column("listed", sa.SmallInteger, nullable=True))


def downgrade(op: Operations) -> None:
    """Drop both."""
    again = Again(op)
    again.drop_columns("blazen_run", "listed")
    again.drop_table("blazen_question")
