"""Add the codes that fuzzy matching of person names compares; ``pacs reindex`` fills them.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
COLUMNS = {
    "patient": ("patient_name", "other_patient_names"),
    "study": (
        "referring_physician_name",
        "name_of_physicians_reading_study",
        "requesting_physician",
    ),
    "series": ("performing_physician_name", "operators_name"),
    "instance": ("content_creator_name",),
}


def upgrade() -> None:
    # A name without codes matches as it does without fuzziness, so the previous release may go on storing.
    for table, names in COLUMNS.items():
        for name in names:
            op.add_column(table, sa.Column(f"{name}_codes", TEXT))


def downgrade() -> None:
    for table, names in COLUMNS.items():
        for name in names:
            op.drop_column(table, f"{name}_codes")
