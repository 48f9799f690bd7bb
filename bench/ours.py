"""Our trainer as an attempt runs it, in this process, told and answering as a rival: `python -m bench.ours JOB`."""

import json
import sys
import tempfile
import time
from typing import Any

from core.messages import Done, Publish, TrainOrder


class Listener:
    """A supervisor that keeps the rows, and asks for nothing."""

    closed = False

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.last: Any = None

    def send(self, message: Any) -> None:
        self.last = message
        if isinstance(message, Publish):
            self.rows += message.rows

    def receive(self, timeout: float | None = 0) -> None:
        """There is nothing to say."""


def main() -> None:
    from core.train.run import main as carry_out

    asked = json.loads(sys.argv[1])
    listener = Listener()
    with tempfile.TemporaryDirectory() as folder:
        order = TrainOrder(
            job_id="job_bench",
            attempt=1,
            spec=asked["spec"],
            folder=folder,
            cache_dir=asked["cache_dir"],
            datasets_dir=asked["datasets_dir"],
        )
        carry_out(listener, order.model_dump())  # weights lie in the folder now
        done = time.monotonic()
        if not isinstance(listener.last, Done):
            raise SystemExit(listener.last)
    rows = listener.rows
    told = {
        "epochs": [row["seconds"] for row in rows],
        "done": done,
        "val_accuracy": rows[-1]["val"]["accuracy"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
