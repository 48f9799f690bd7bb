"""Our trainer as an attempt runs it, in this process, told and answering as a rival: `python -m bench.ours JOB`."""

import json
import sys
import tempfile
import time
from typing import Any

from core.channel import encode
from core.messages import Done, Publish, Started, TrainOrder


class Listener:
    """A supervisor that keeps the rows, and asks for nothing."""

    closed = False

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.last: Any = None
        self.marks: list[tuple[float, float]] = []
        """Time and processor time when training began, and at every publication."""

    def send(self, message: Any) -> None:
        encode(message)  # the pipe to a worker takes lines
        self.last = message
        if isinstance(message, Publish):
            self.rows += message.rows
        if isinstance(message, Started | Publish):
            self.marks.append((time.monotonic(), time.process_time()))

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
    rows, begun, published = listener.rows, listener.marks[0], listener.marks[-1]
    told = {
        "epochs": [row["seconds"] for row in rows],
        "done": done,
        "run": published[0] - begun[0],
        "run_cpu": published[1] - begun[1],
        "publications": len(listener.marks) - 1,
        "val_accuracy": rows[-1]["val"]["accuracy"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
