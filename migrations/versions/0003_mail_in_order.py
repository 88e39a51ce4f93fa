"""An inbox is read from its beginning, a page at a time: an index that has the rows of each run in
order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._stores.sql.idempotent_ops import Again

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Put the index in the place of the one that has them in any order."""
    again = Again(op)
    again.create_index("ix_blazen_inbox_run_no_mail_id", "blazen_inbox", ["run_no", "mail_id"])
    again.drop_index("ix_blazen_inbox_run_no", "blazen_inbox")


def downgrade(op: Operations) -> None:
    """Put the other one back."""
    again = Again(op)
    again.create_index("ix_blazen_inbox_run_no", "blazen_inbox", ["run_no"])
    again.drop_index("ix_blazen_inbox_run_no_mail_id", "blazen_inbox")
