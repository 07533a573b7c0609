"""Whether a key's prompts and answers are kept; those of keys that were made before are not."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the switch, off."""
    op.add_column("keys", sa.Column("record_content", sa.Boolean, nullable=False, server_default=sa.false()))
