"""The tables. `migrations/` creates and upgrades them; a test keeps both consistent.

Users find a run by its id; the tables store it under a number, `run_no`. The journal is the source
of truth. A run's row serves to find, list and drive the run. Times are integers: microseconds since
the epoch, UTC. There are no foreign keys: they would lock a run's row at every append. Each payload
names its `format`, so that a later version may pack or encrypt it, and is split into `part`s if it
is too large for one row. The numbers of rows are never used again.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from blazen_trio._state.status import RunStatus

__all__ = [
    "HEAD",
    "IN_PARTS",
    "OUR_TABLES",
    "PART_SIZE",
    "PLAIN",
    "STATUS_CODES",
    "STATUS_OF_CODE",
    "VERSION_TABLE",
    "blob",
    "history",
    "inbox",
    "inbox_key",
    "inbox_part",
    "journal",
    "lease",
    "metadata",
    "question",
    "runs",
    "snapshot",
]

# The Alembic revision that this code needs, and the table with a database's revision.
HEAD = "0005"
VERSION_TABLE = "blazen_version"

# The `format` of a payload that is stored as it is.
PLAIN = 1
# The `format` of an inbox row whose data is in `inbox_part`.
IN_PARTS = 2
PART_SIZE = 4 * 1024 * 1024  # bytes of a payload in one row

STATUS_CODES = {
    RunStatus.QUEUED: 1,
    RunStatus.RUNNING: 2,
    RunStatus.PAUSED: 3,
    RunStatus.WAITING: 4,
    RunStatus.COMPLETED: 5,
    RunStatus.FAILED: 6,
    RunStatus.TIMED_OUT: 7,
    RunStatus.CANCELLED: 8,
}
STATUS_OF_CODE = {code: status for status, code in STATUS_CODES.items()}

# SQLite assigns numbers only to a key of its own type INTEGER; MySQL's plain BLOB and TEXT end at
# 64 KiB.
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_Payload = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
# Ids and keys are compared byte by byte, even if the server's default would ignore their case.
_Id = sa.String(255).with_variant(
    mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

runs = sa.Table(
    "blazen_run",
    metadata,
    sa.Column("run_no", _Number, primary_key=True, autoincrement=True),
    sa.Column("run_id", _Id, nullable=False, unique=True),
    sa.Column("workflow", _Id, nullable=False),
    sa.Column("version", sa.String(255), nullable=False),
    sa.Column("status", sa.SmallInteger, nullable=False),
    # The lease of the opening that drives it.
    sa.Column("owner", sa.BigInteger, nullable=True, index=True),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("error", _Text, nullable=True),
    # When a worker may take it; NULL while it is driven, paused or ended, and while only an inbox
    # message can wake it.
    sa.Column("wake", sa.BigInteger, nullable=True),
    # No worker takes it before this time.
    sa.Column("hold", sa.BigInteger, nullable=False, server_default="0"),
    # How many of its drivers have died since one of its steps last committed.
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    # 1: `question` lists its open questions; NULL: it does not, as an earlier version created the
    # run, and no later one has driven it yet.
    sa.Column("listed", sa.SmallInteger, nullable=True),
    sa.Index(None, "workflow", "wake"),
    sa.Index(None, "created", "run_no"),
    sa.Index(None, "status", "updated"),
    sqlite_autoincrement=True,
)

journal = sa.Table(
    "blazen_journal",
    metadata,
    sa.Column("run_no", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("data", _Payload, nullable=False),
)

snapshot = sa.Table(
    "blazen_snapshot",
    metadata,
    sa.Column("run_no", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("data", _Payload, nullable=False),
)

blob = sa.Table(
    "blazen_blob",
    metadata,
    sa.Column("run_no", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("digest", _Id, primary_key=True),
    sa.Column("part", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("data", _Payload, nullable=False),
)

history = sa.Table(
    "blazen_history",
    metadata,
    sa.Column("run_no", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("data", _Payload, nullable=False),
)

inbox = sa.Table(
    "blazen_inbox",
    metadata,
    sa.Column("mail_id", _Number, primary_key=True, autoincrement=True),
    sa.Column("run_no", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("key", _Id, nullable=True),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("data", _Payload, nullable=False),
    sa.Index(None, "run_no", "mail_id"),  # the first rows of one run, in order
    sqlite_autoincrement=True,
)

inbox_key = sa.Table(
    "blazen_inbox_key",
    metadata,
    sa.Column("run_no", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", _Id, primary_key=True),
)

inbox_part = sa.Table(
    "blazen_inbox_part",
    metadata,
    sa.Column("run_no", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("mail_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("data", _Payload, nullable=False),
)

question = sa.Table(
    "blazen_question",
    metadata,
    sa.Column("run_no", sa.BigInteger, primary_key=True, autoincrement=False),
    # SHA-256 of the `request_id`, which may be too long for a key, or not storable as text.
    sa.Column("digest", _Id, primary_key=True),
    sa.Column("question_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("format", sa.SmallInteger, nullable=False),
    sa.Column("data", _Payload, nullable=False),
)

lease = sa.Table(
    "blazen_lease",
    metadata,
    sa.Column("lease_id", _Number, primary_key=True, autoincrement=True),
    sa.Column("state", sa.SmallInteger, nullable=False),  # 1: alive; 0: declared dead
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),  # the last batch written under it
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("pid_namespace", sa.String(64), nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("started", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

OUR_TABLES = frozenset((*metadata.tables, VERSION_TABLE))
