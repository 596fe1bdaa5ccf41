"""Create the table of recorded associations.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "association",
        sa.Column("id", KEY, sa.Identity(), nullable=False),
        sa.Column("calling_ae", TEXT, nullable=False),
        sa.Column("called_ae", TEXT, nullable=False),
        sa.Column("calling_host", TEXT, nullable=False),
        sa.Column("tls", sa.Boolean, nullable=False),
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("finished_at", UTC, nullable=False),
        sa.Column("ending", TEXT, nullable=False),
        sa.Column("codes", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("is_problem", sa.Boolean, nullable=False),
        sa.Column("contexts", TEXT, nullable=False),
        sa.Column("operations", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("association_pkey")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("association_started_at_idx"), "association", ["started_at"])


def downgrade() -> None:
    op.drop_table("association")
