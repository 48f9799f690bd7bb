"""What a worker does to a job's rows, without training."""

from typing import Any

from core.db import leases
from core.db.claims import Checkpoint, Claim, claim
from core.db.endings import AttemptEnd
from core.db.engine import Database

HOST = "test-host"


def row(epoch: int, **changes: Any) -> dict[str, Any]:
    """Return the trainer's row of an epoch."""
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "train": {"loss": 1 / epoch, "accuracy": 0.5},
        "val": {"loss": 2 / epoch, "accuracy": 0.25},
        "lr": [0.01],
        "grad_norm": 1.5,
        "seconds": 0.1,
        "samples_per_second": 1000.0,
        "early_stopping": None,
        **changes,
    }


class Work:
    """Moves jobs the way the supervisor does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self) -> Claim:
        with self._database.session_scope() as session:
            found = claim(session, "wk_" + "0" * 32, ["cpu"], host=HOST)
        assert found is not None
        return found

    def publish(self, mine: Claim, *rows: dict[str, Any], decisions: tuple[dict[str, Any], ...] = ()) -> None:
        last = rows[-1]["epoch"]
        checkpoint = Checkpoint(key=f"jobs/{mine.job_id}/{mine.fence}/{last}.pt", digest=f"{last:064x}", epoch=last)
        with self._database.session_scope() as session:
            leases.publish(
                session,
                mine.job_id,
                mine.fence,
                checkpoint=checkpoint,
                rows=rows,
                decisions=decisions,
                active_seconds=last,
            )

    def finish(self, mine: Claim, *artifacts: leases.ArtifactFile) -> None:
        with self._database.session_scope() as session:
            leases.finish(
                session,
                mine.job_id,
                mine.fence,
                state="succeeded",
                stop_reason="completed",
                end=AttemptEnd(exit_code=0),
                artifacts=artifacts,
            )
