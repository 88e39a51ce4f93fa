"""Index the inbox by run and by order of arrival, as it is read in pages from its beginning."""

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
    """Replace the index by run with one by run and order of arrival.

    The new index comes first, so that the inbox has an index at each moment.
    """
    again = Again(op)
    again.create_index("ix_blazen_inbox_run_no_mail_id", "blazen_inbox", ["run_no", "mail_id"])
    again.drop_index("ix_blazen_inbox_run_no", "blazen_inbox")


def downgrade(op: Operations) -> None:
    """Restore the index by run alone."""
    again = Again(op)
    again.create_index("ix_blazen_inbox_run_no", "blazen_inbox", ["run_no"])
    again.drop_index("ix_blazen_inbox_run_no_mail_id", "blazen_inbox")
