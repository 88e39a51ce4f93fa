"""${message}."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from blazen_trio._stores.sql.idempotent_ops import Again
${imports if imports else ""}

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade(op: Operations) -> None:
    again = Again(op)
    ${upgrades if upgrades else "pass"}


def downgrade(op: Operations) -> None:
    again = Again(op)
    ${downgrades if downgrades else "pass"}
