"""Create the table of files that are not yet durable in the storage.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "redo",
        sa.Column("location", TEXT, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("location", name=op.f("redo_pkey")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Most contents do not compress, and few stay for longer than a second.
        op.execute("ALTER TABLE redo ALTER COLUMN content SET STORAGE EXTERNAL")


def downgrade() -> None:
    # Files that are not durable yet lose their copy: stop the archive before, which settles them.
    op.drop_table("redo")
