"""Create the tables of runs, journals, snapshots, blobs, histories, inboxes and leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from blazen_trio._stores.sql.idempotent_ops import Again

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out rather than imported: a migration must not change when the code does.
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_Payload = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_Id = sa.String(255).with_variant(
    mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
_MYSQL = {"engine": "InnoDB", "charset": "utf8mb4"}
_OPTIONS = {
    f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _MYSQL.items()
}


def upgrade(op: Operations) -> None:
    """Create the tables."""
    again = Again(op)
    again.create_table(
        "blazen_run",
        sa.Column("run_no", _Number, autoincrement=True, nullable=False),
        sa.Column("run_id", _Id, nullable=False),
        sa.Column("workflow", _Id, nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("owner", sa.BigInteger, nullable=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("error", _Text, nullable=True),
        sa.PrimaryKeyConstraint("run_no", name="pk_blazen_run"),
        sa.UniqueConstraint("run_id", name="uq_blazen_run_run_id"),
        sqlite_autoincrement=True,
        **_OPTIONS,
    )
    again.create_index("ix_blazen_run_owner", "blazen_run", ["owner"])
    again.create_index("ix_blazen_run_created_run_no", "blazen_run", ["created", "run_no"])
    again.create_index("ix_blazen_run_status_updated", "blazen_run", ["status", "updated"])
    _create_payload_table(
        again,
        "blazen_journal",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
    )
    _create_payload_table(
        again,
        "blazen_snapshot",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
    )
    _create_payload_table(again, "blazen_blob", sa.Column("digest", _Id, nullable=False))
    _create_payload_table(
        again,
        "blazen_history",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
    )
    again.create_table(
        "blazen_inbox",
        sa.Column("mail_id", _Number, autoincrement=True, nullable=False),
        sa.Column("run_no", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("key", _Id, nullable=True),
        sa.Column("format", sa.SmallInteger, nullable=False),
        sa.Column("data", _Payload, nullable=False),
        sa.PrimaryKeyConstraint("mail_id", name="pk_blazen_inbox"),
        sqlite_autoincrement=True,
        **_OPTIONS,
    )
    again.create_index("ix_blazen_inbox_run_no", "blazen_inbox", ["run_no"])
    again.create_table(
        "blazen_inbox_key",
        sa.Column("run_no", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("key", _Id, nullable=False),
        sa.PrimaryKeyConstraint("run_no", "key", name="pk_blazen_inbox_key"),
        **_OPTIONS,
    )
    again.create_table(
        "blazen_lease",
        sa.Column("lease_id", _Number, autoincrement=True, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("boot", sa.String(64), nullable=False),
        sa.Column("pid_namespace", sa.String(64), nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("lease_id", name="pk_blazen_lease"),
        sqlite_autoincrement=True,
        **_OPTIONS,
    )


def _create_payload_table(again: Again, name: str, number: sa.Column[int] | sa.Column[str]) -> None:
    """Create a table for payloads of runs, which are stored in parts."""
    again.create_table(
        name,
        sa.Column("run_no", sa.BigInteger, autoincrement=False, nullable=False),
        number,
        sa.Column("part", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("format", sa.SmallInteger, nullable=False),
        sa.Column("data", _Payload, nullable=False),
        sa.PrimaryKeyConstraint("run_no", number.name, "part", name=f"pk_{name}"),
        **_OPTIONS,
    )


def downgrade(op: Operations) -> None:
    """Drop the tables and all that is stored in them."""
    again = Again(op)
    for name in ("run", "journal", "snapshot", "blob", "history", "inbox", "inbox_key", "lease"):
        again.drop_table(f"blazen_{name}")
