"""Create the tables of storage commitment requests.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UTC = sa.DateTime(timezone=True)
#: What an AE was registered for without --allow: every service there was, and every one there is now.
EVERY_SERVICE_BEFORE = '["echo", "find", "get", "move", "store"]'
EVERY_SERVICE = '["commit", "echo", "find", "get", "move", "store"]'


def upgrade() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", KEY, sa.Identity(), nullable=False),
        sa.Column("transaction_uid", TEXT, nullable=False),
        sa.Column("calling_ae", TEXT, nullable=False),
        sa.Column("calling_host", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("process", TEXT),
        sa.Column("requested_at", UTC, nullable=False),
        sa.Column("active_at", UTC, nullable=False),
        sa.Column("checked_at", UTC),
        sa.Column("finished_at", UTC),
        sa.Column("due_at", UTC),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("comment", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("commitment_pkey")),
        sqlite_autoincrement=True,
    )
    for column in ("transaction_uid", "requested_at", "due_at"):
        op.create_index(op.f(f"commitment_{column}_idx"), "commitment", [column])
    op.create_table(
        "commitment_reference",
        sa.Column("commitment_pk", KEY, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("sop_class_uid", TEXT, nullable=False),
        sa.Column("sop_instance_uid", TEXT, nullable=False),
        sa.Column("failure_reason", sa.Integer),
        sa.ForeignKeyConstraint(
            ["commitment_pk"],
            ["commitment.id"],
            name=op.f("commitment_reference_commitment_pk_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("commitment_pk", "number", name=op.f("commitment_reference_pkey")),
    )
    _replace_services(EVERY_SERVICE_BEFORE, EVERY_SERVICE)


def downgrade() -> None:
    _replace_services(EVERY_SERVICE, EVERY_SERVICE_BEFORE)
    op.drop_table("commitment_reference")
    op.drop_table("commitment")


def _replace_services(before: str, after: str) -> None:
    remote_ae = sa.table("remote_ae", sa.column("services", TEXT))
    op.execute(remote_ae.update().where(remote_ae.c.services == before).values(services=after))
