"""A study keeps what its own instances say of the patient; a patient, in what its studies disagree.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
COLUMNS = (
    "patient_name",
    "patient_name_alphabetic",
    "patient_name_ideographic",
    "patient_name_phonetic",
    "patient_name_codes",
    "patient_birth_date",
    "patient_birth_time",
    "patient_birth_time_canonical",
    "patient_sex",
    "other_patient_names",
    "other_patient_names_alphabetic",
    "other_patient_names_ideographic",
    "other_patient_names_phonetic",
    "other_patient_names_codes",
    "other_patient_ids",
    "ethnic_group",
    "patient_comments",
)
INDEXED = (
    "patient_name_alphabetic",
    "patient_name_ideographic",
    "patient_name_phonetic",
    "patient_birth_date",
)


def upgrade() -> None:
    # Both without a value mean "by an earlier release", which so may go on storing.
    op.add_column("patient", sa.Column("conflicts", TEXT))
    for table in ("patient", "study"):
        op.add_column(table, sa.Column("attribute_set_version", sa.Integer))
    for column in COLUMNS:
        op.add_column("study", sa.Column(column, TEXT))
    # What the patient says, until 'pacs reindex' has asked the study's own instances.
    names = ", ".join(COLUMNS)
    op.execute(
        f"UPDATE study SET ({names}) ="  # noqa: S608
        f" (SELECT {names} FROM patient WHERE patient.id = study.patient_pk)"
    )
    for column in INDEXED:
        has_value = sa.column(column).is_not(None)
        op.create_index(
            f"study_{column}_idx",
            "study",
            [column],
            sqlite_where=has_value,
            postgresql_where=has_value,
        )


def downgrade() -> None:
    for column in INDEXED:
        op.drop_index(f"study_{column}_idx", "study")
    for column in (*COLUMNS, "attribute_set_version"):
        op.drop_column("study", column)
    for column in ("conflicts", "attribute_set_version"):
        op.drop_column("patient", column)
