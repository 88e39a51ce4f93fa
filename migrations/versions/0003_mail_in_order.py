"""An inbox is read from its beginning, a page at a time: an index that has the rows of each run in
order.
"""

from __future__ import annotations

from blazen_trio._stores.sql import again

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Put the index in the place of the one that has them in any order."""
    again.create_index("ix_blazen_inbox_run_no_mail_id", "blazen_inbox", ["run_no", "mail_id"])
    again.drop_index("ix_blazen_inbox_run_no", "blazen_inbox")


def downgrade() -> None:
    """Put the other one back."""
    again.create_index("ix_blazen_inbox_run_no", "blazen_inbox", ["run_no"])
    again.drop_index("ix_blazen_inbox_run_no_mail_id", "blazen_inbox")
