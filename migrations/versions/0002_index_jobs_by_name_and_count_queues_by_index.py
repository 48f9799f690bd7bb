"""Index jobs by name; count queues by an index alone

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

is_compatible = True


def upgrade() -> None:
    """The queue stands behind the columns by which jobs are listed: counting then reads no row of the table."""
    op.create_index("ix_jobs_project_name_id", "jobs", ["project", "name", "id"])
    op.create_index("ix_jobs_project_state_id_queue", "jobs", ["project", "state", "id", "queue"])
    op.drop_index("ix_jobs_project_state_id", table_name="jobs")


def downgrade() -> None:
    """Take them away again."""
    op.create_index("ix_jobs_project_state_id", "jobs", ["project", "state", "id"])
    op.drop_index("ix_jobs_project_state_id_queue", table_name="jobs")
    op.drop_index("ix_jobs_project_name_id", table_name="jobs")
