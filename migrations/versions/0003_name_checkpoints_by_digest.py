"""Name the digest of checkpoints by no algorithm

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

is_compatible = False


def upgrade() -> None:
    """A checkpoint's digest can be a BLAKE3 now, which older programs would take for damage."""
    _rename("checkpoint_sha256", "checkpoint_digest")
    _rename_key("sha256", "digest")


def downgrade() -> None:
    """Older programs take each checkpoint with a BLAKE3 for damaged: a job that goes on from one fails there."""
    _rename_key("digest", "sha256")
    _rename("checkpoint_digest", "checkpoint_sha256")


def _rename(before: str, after: str) -> None:
    """In place: a copy of SQLite's table would drop the old one, and all rows that refer to its rows with it."""
    op.execute(f"ALTER TABLE jobs RENAME COLUMN {before} TO {after}")


def _rename_key(before: str, after: str) -> None:
    of, kind = "previous_checkpoint", "json_type"
    changed = f"json_remove(json_set({of}, '$.{after}', json_extract({of}, '$.{before}')), '$.{before}')"
    if op.get_bind().dialect.name == "postgresql":
        of, kind = f"CAST({of} AS jsonb)", "jsonb_typeof"
        changed = f"CAST({of} - '{before}' || jsonb_build_object('{after}', {of} -> '{before}') AS json)"
    op.execute(f"UPDATE jobs SET previous_checkpoint = {changed} WHERE {kind}({of}) = 'object'")
