"""A trainer without torch: speaks core.messages, writes real files, and misbehaves where the spec asks it to.

Its weights are a chain of digests, so that a lost, doubled or wrongly resumed epoch changes the result.

    {"epochs": 5, "epoch_seconds": 0.05, "faults": {"<attempt>": {"epoch": 3, "do": "kill"}}, "ignores_stop": false}
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from core import digests
from core.channel import Channel
from core.messages import (
    CheckpointRef,
    Done,
    Failed,
    FileRef,
    Progress,
    Publish,
    StageChanged,
    Started,
    Stopped,
    TrainOrder,
)

NUMERICS = {"device": "cpu", "threads": 1, "isa": "none", "torch": "0", "torchvision": "0"}


def weights(epochs: int, seed: int = 0) -> bytes:
    """Return what a training of so many epochs ends with."""
    state = str(seed).encode()
    for epoch in range(1, epochs + 1):
        state = advance(state, epoch)
    return state


def advance(state: bytes, epoch: int) -> bytes:
    return hashlib.sha256(state + str(epoch).encode()).hexdigest().encode()


def train(channel: Channel, request: dict[str, Any]) -> None:
    order = TrainOrder.model_validate(request)
    spec = order.spec
    fault = spec.get("faults", {}).get(str(order.attempt), {})
    sys.stdout.write(f"attempt {order.attempt} of {order.job_id}\n")
    epoch, state = resume(order)
    begun = time.monotonic()
    if fault.get("do") == "refuse":
        channel.send(Failed(code=fault["code"], message="it cannot be done", issues=[]))
        return
    channel.send(Started(resolved_spec=spec, numerics=NUMERICS, from_epoch=epoch))
    channel.send(StageChanged(stage="training"))
    while epoch < spec["epochs"]:
        if asked(channel, spec, spec.get("epoch_seconds", 0.0)):
            channel.send(Stopped(reason="asked", active_seconds=order.active_seconds + time.monotonic() - begun))
            return
        epoch += 1
        state = advance(state, epoch)
        if fault.get("epoch") == epoch:
            misbehave(fault["do"], channel, Path(order.folder))
        active = order.active_seconds + time.monotonic() - begun
        publish(channel, order, epoch, state, active=active)
    files = [write(Path(order.folder), "model.safetensors", state)]
    if fault.get("do") == "lie":
        Path(files[0].name).write_bytes(b"something else")
    channel.send(Done(stop_reason="completed", artifacts=files, best={"epoch": epoch, "monitor": "x", "value": 1.0}))


def resume(order: TrainOrder) -> tuple[int, bytes]:
    for name, digest in zip(order.checkpoints, order.checkpoint_digests, strict=True):
        path = Path(name)
        if path.is_file() and digests.of_file(path, digest) == digest:
            epoch, _, state = path.read_bytes().partition(b" ")
            return int(epoch), state
    return 0, str(order.spec.get("seed", 0)).encode()


def asked(channel: Channel, spec: dict[str, Any], seconds: float) -> bool:
    if channel.closed:
        os._exit(1)
    message = channel.receive(seconds)
    return message is not None and not spec.get("ignores_stop")


def misbehave(what: str, channel: Channel, folder: Path) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        sys.exit(3)
    if what == "raise":
        raise RuntimeError("a defect of the trainer")
    if what == "hang":
        time.sleep(600)
    if what == "babble":
        channel.send({"type": "nonsense"})
        time.sleep(600)


def publish(channel: Channel, order: TrainOrder, epoch: int, state: bytes, *, active: float) -> None:
    folder, epochs = Path(order.folder), order.spec["epochs"]
    name, data = f"checkpoint-{epoch}-{epoch * 10}.pt", str(epoch).encode() + b" " + state
    (folder / name).write_bytes(data)
    (folder / f"checkpoint-{epoch - 2}-{(epoch - 2) * 10}.pt").unlink(missing_ok=True)
    if epoch > order.published_epochs:
        channel.send(
            Publish(
                checkpoint=CheckpointRef(
                    name=name,
                    digest=digests.of_checkpoint(data),
                    size_bytes=len(data),
                    epoch=epoch,
                    step=epoch * 10,
                ),
                rows=[{"epoch": epoch, "step": epoch * 10, "train": {"loss": 1.0 / epoch}, "val": None, "lr": [0.1]}],
                best={"epoch": epoch, "monitor": "train_loss", "value": 1.0 / epoch},
                progress=Progress(epoch=epoch, epochs=epochs, step=epoch * 10, steps=epochs * 10),
                active_seconds=active,
            )
        )


def write(folder: Path, name: str, data: bytes) -> FileRef:
    (folder / name).write_bytes(data)
    return FileRef(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
