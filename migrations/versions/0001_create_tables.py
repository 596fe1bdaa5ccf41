"""Create the tables.

Revision ID: 0001
Revises: nothing

Frozen: this text says what was created, whatever ``pacs.index.tables`` says today.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Compared by bytes on either backend; see pacs.index.tables.
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_archive_state()
    _create_patient()
    _create_remote_ae()
    _create_retrieve()
    _create_study()
    _create_sub_operation()
    _create_series()
    _create_instance()


def downgrade() -> None:
    for table in (
        "instance",
        "series",
        "sub_operation",
        "study",
        "retrieve",
        "remote_ae",
        "patient",
        "archive_state",
    ):
        op.drop_table(table)


def _create_archive_state() -> None:
    op.create_table(
        "archive_state",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="archive_state_pkey"),
    )


def _create_patient() -> None:
    op.create_table(
        "patient",
        sa.Column("id", KEY, sa.Identity(), nullable=False),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("patient_id", TEXT, nullable=True),
        sa.Column("patient_name", TEXT, nullable=True),
        sa.Column("patient_name_alphabetic", TEXT, nullable=True),
        sa.Column("patient_name_ideographic", TEXT, nullable=True),
        sa.Column("patient_name_phonetic", TEXT, nullable=True),
        sa.Column("issuer_of_patient_id", TEXT, nullable=True),
        sa.Column("patient_birth_date", TEXT, nullable=True),
        sa.Column("patient_birth_time", TEXT, nullable=True),
        sa.Column("patient_birth_time_canonical", TEXT, nullable=True),
        sa.Column("patient_sex", TEXT, nullable=True),
        sa.Column("other_patient_names", TEXT, nullable=True),
        sa.Column("other_patient_names_alphabetic", TEXT, nullable=True),
        sa.Column("other_patient_names_ideographic", TEXT, nullable=True),
        sa.Column("other_patient_names_phonetic", TEXT, nullable=True),
        sa.Column("other_patient_ids", TEXT, nullable=True),
        sa.Column("ethnic_group", TEXT, nullable=True),
        sa.Column("patient_comments", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="patient_pkey"),
        sa.UniqueConstraint("identity", name="patient_identity_key"),
        sqlite_autoincrement=True,
    )
    _create_index_of_values("patient", "patient_birth_date")
    _create_index_of_values("patient", "patient_id")
    _create_index_of_values("patient", "patient_name_alphabetic")
    _create_index_of_values("patient", "patient_name_ideographic")
    _create_index_of_values("patient", "patient_name_phonetic")


def _create_remote_ae() -> None:
    op.create_table(
        "remote_ae",
        sa.Column("title", TEXT, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("services", TEXT, nullable=False),
        sa.Column("destinations", TEXT, nullable=True),
        sa.Column("tls", sa.Boolean(), nullable=False),
        sa.Column("parallel_associations", sa.Integer(), nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("title", name="remote_ae_pkey"),
    )


def _create_retrieve() -> None:
    op.create_table(
        "retrieve",
        sa.Column("id", KEY, sa.Identity(), nullable=False),
        sa.Column("calling_ae", TEXT, nullable=False),
        sa.Column("calling_host", TEXT, nullable=False),
        sa.Column("service", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("level", TEXT, nullable=False),
        sa.Column("identifier", TEXT, nullable=False),
        sa.Column("destination", TEXT, nullable=False),
        sa.Column("message_id", sa.Integer(), nullable=False),
        sa.Column("process", TEXT, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("active_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("completed", sa.Integer(), nullable=True),
        sa.Column("failed", sa.Integer(), nullable=True),
        sa.Column("warning", sa.Integer(), nullable=True),
        sa.Column("remaining", sa.Integer(), nullable=True),
        sa.Column("error_comment", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="retrieve_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_index("retrieve_started_at_idx", "retrieve", ["started_at"])


def _create_index_of_values(table: str, column: str) -> None:
    has_value = sa.column(column).is_not(None)
    op.create_index(
        f"{table}_{column}_idx",
        table,
        [column],
        sqlite_where=has_value,
        postgresql_where=has_value,
    )


def _create_study() -> None:
    op.create_table(
        "study",
        sa.Column("id", KEY, sa.Identity(), nullable=False),
        sa.Column("patient_pk", KEY, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", TEXT, nullable=False),
        sa.Column("study_date", TEXT, nullable=True),
        sa.Column("study_time", TEXT, nullable=True),
        sa.Column("study_time_canonical", TEXT, nullable=True),
        sa.Column("accession_number", TEXT, nullable=True),
        sa.Column("study_id", TEXT, nullable=True),
        sa.Column("referring_physician_name", TEXT, nullable=True),
        sa.Column("referring_physician_name_alphabetic", TEXT, nullable=True),
        sa.Column("referring_physician_name_ideographic", TEXT, nullable=True),
        sa.Column("referring_physician_name_phonetic", TEXT, nullable=True),
        sa.Column("study_description", TEXT, nullable=True),
        sa.Column("procedure_code_sequence", TEXT, nullable=True),
        sa.Column("name_of_physicians_reading_study", TEXT, nullable=True),
        sa.Column("name_of_physicians_reading_study_alphabetic", TEXT, nullable=True),
        sa.Column("name_of_physicians_reading_study_ideographic", TEXT, nullable=True),
        sa.Column("name_of_physicians_reading_study_phonetic", TEXT, nullable=True),
        sa.Column("admitting_diagnoses_description", TEXT, nullable=True),
        sa.Column("requesting_physician", TEXT, nullable=True),
        sa.Column("requesting_physician_alphabetic", TEXT, nullable=True),
        sa.Column("requesting_physician_ideographic", TEXT, nullable=True),
        sa.Column("requesting_physician_phonetic", TEXT, nullable=True),
        sa.Column("requested_procedure_description", TEXT, nullable=True),
        sa.Column("patient_age", TEXT, nullable=True),
        sa.Column("patient_size", TEXT, nullable=True),
        sa.Column("patient_weight", TEXT, nullable=True),
        sa.Column("occupation", TEXT, nullable=True),
        sa.Column("additional_patient_history", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="study_pkey"),
        sa.ForeignKeyConstraint(["patient_pk"], ["patient.id"], name="study_patient_pk_fkey"),
        sa.UniqueConstraint("study_instance_uid", name="study_study_instance_uid_key"),
        sqlite_autoincrement=True,
    )
    _create_index_of_values("study", "accession_number")
    op.create_index("study_patient_pk_idx", "study", ["patient_pk"])
    _create_index_of_values("study", "study_date")
    _create_index_of_values("study", "study_id")
    _create_index_of_values("study", "study_time_canonical")


def _create_sub_operation() -> None:
    op.create_table(
        "sub_operation",
        sa.Column("retrieve_pk", KEY, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sop_class_uid", TEXT, nullable=False),
        sa.Column("sop_instance_uid", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error_comment", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("duration_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("retrieve_pk", "number", name="sub_operation_pkey"),
        sa.ForeignKeyConstraint(
            ["retrieve_pk"],
            ["retrieve.id"],
            name="sub_operation_retrieve_pk_fkey",
            ondelete="CASCADE",
        ),
    )


def _create_series() -> None:
    op.create_table(
        "series",
        sa.Column("id", KEY, sa.Identity(), nullable=False),
        sa.Column("study_pk", KEY, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", TEXT, nullable=False),
        sa.Column("modality", TEXT, nullable=True),
        sa.Column("series_number", TEXT, nullable=True),
        sa.Column("series_description", TEXT, nullable=True),
        sa.Column("body_part_examined", TEXT, nullable=True),
        sa.Column("laterality", TEXT, nullable=True),
        sa.Column("protocol_name", TEXT, nullable=True),
        sa.Column("series_date", TEXT, nullable=True),
        sa.Column("series_time", TEXT, nullable=True),
        sa.Column("series_time_canonical", TEXT, nullable=True),
        sa.Column("performing_physician_name", TEXT, nullable=True),
        sa.Column("performing_physician_name_alphabetic", TEXT, nullable=True),
        sa.Column("performing_physician_name_ideographic", TEXT, nullable=True),
        sa.Column("performing_physician_name_phonetic", TEXT, nullable=True),
        sa.Column("operators_name", TEXT, nullable=True),
        sa.Column("operators_name_alphabetic", TEXT, nullable=True),
        sa.Column("operators_name_ideographic", TEXT, nullable=True),
        sa.Column("operators_name_phonetic", TEXT, nullable=True),
        sa.Column("station_name", TEXT, nullable=True),
        sa.Column("institution_name", TEXT, nullable=True),
        sa.Column("institutional_department_name", TEXT, nullable=True),
        sa.Column("manufacturer", TEXT, nullable=True),
        sa.Column("manufacturer_model_name", TEXT, nullable=True),
        sa.Column("device_serial_number", TEXT, nullable=True),
        sa.Column("software_versions", TEXT, nullable=True),
        sa.Column("patient_position", TEXT, nullable=True),
        sa.Column("frame_of_reference_uid", TEXT, nullable=True),
        sa.Column("performed_procedure_step_id", TEXT, nullable=True),
        sa.Column("performed_procedure_step_description", TEXT, nullable=True),
        sa.Column("performed_procedure_step_start_date", TEXT, nullable=True),
        sa.Column("performed_procedure_step_start_time", TEXT, nullable=True),
        sa.Column("performed_procedure_step_start_time_canonical", TEXT, nullable=True),
        sa.Column("request_attributes_sequence", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="series_pkey"),
        sa.ForeignKeyConstraint(["study_pk"], ["study.id"], name="series_study_pk_fkey"),
        sa.UniqueConstraint(
            "series_instance_uid", "study_pk", name="series_series_instance_uid_study_pk_key"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("series_study_pk_modality_idx", "series", ["study_pk", "modality"])


def _create_instance() -> None:
    op.create_table(
        "instance",
        sa.Column("id", KEY, sa.Identity(), nullable=False),
        sa.Column("series_pk", KEY, nullable=False),
        sa.Column("transfer_syntax_uid", TEXT, nullable=False),
        sa.Column("location", TEXT, nullable=False),
        sa.Column("data_set_offset", sa.Integer(), nullable=False),
        sa.Column("data_set_size", sa.BigInteger(), nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source_ae", TEXT, nullable=False),
        sa.Column("sop_instance_uid", TEXT, nullable=False),
        sa.Column("instance_number", TEXT, nullable=True),
        sa.Column("sop_class_uid", TEXT, nullable=False),
        sa.Column("image_type", TEXT, nullable=True),
        sa.Column("acquisition_number", TEXT, nullable=True),
        sa.Column("acquisition_date", TEXT, nullable=True),
        sa.Column("acquisition_time", TEXT, nullable=True),
        sa.Column("acquisition_time_canonical", TEXT, nullable=True),
        sa.Column("acquisition_date_time", TEXT, nullable=True),
        sa.Column("acquisition_date_time_canonical", TEXT, nullable=True),
        sa.Column("content_date", TEXT, nullable=True),
        sa.Column("content_time", TEXT, nullable=True),
        sa.Column("content_time_canonical", TEXT, nullable=True),
        sa.Column("instance_creation_date", TEXT, nullable=True),
        sa.Column("instance_creation_time", TEXT, nullable=True),
        sa.Column("instance_creation_time_canonical", TEXT, nullable=True),
        sa.Column("rows", TEXT, nullable=True),
        sa.Column("columns", TEXT, nullable=True),
        sa.Column("number_of_frames", TEXT, nullable=True),
        sa.Column("bits_allocated", TEXT, nullable=True),
        sa.Column("photometric_interpretation", TEXT, nullable=True),
        sa.Column("slice_location", TEXT, nullable=True),
        sa.Column("image_comments", TEXT, nullable=True),
        sa.Column("content_label", TEXT, nullable=True),
        sa.Column("content_description", TEXT, nullable=True),
        sa.Column("content_creator_name", TEXT, nullable=True),
        sa.Column("content_creator_name_alphabetic", TEXT, nullable=True),
        sa.Column("content_creator_name_ideographic", TEXT, nullable=True),
        sa.Column("content_creator_name_phonetic", TEXT, nullable=True),
        sa.Column("completion_flag", TEXT, nullable=True),
        sa.Column("verification_flag", TEXT, nullable=True),
        sa.Column("concept_name_code_sequence", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="instance_pkey"),
        sa.ForeignKeyConstraint(["series_pk"], ["series.id"], name="instance_series_pk_fkey"),
        sa.UniqueConstraint("location", name="instance_location_key"),
        sa.UniqueConstraint("sop_instance_uid", name="instance_sop_instance_uid_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "instance_series_pk_instance_number_idx", "instance", ["series_pk", "instance_number"]
    )
