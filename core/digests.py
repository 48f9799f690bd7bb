"""Digests as they are recorded beside a key: what they look like, how they are computed, and so how bytes are compared.

    64 hex digits                  SHA-256: uploads, artifacts, and checkpoints of earlier versions
    "blake3:" and 56 hex digits    BLAKE3, its first 224 bits so that it fits a column of 64 characters: checkpoints

Bytes are compared by computing what was recorded: `like` is the recorded digest, whose prefix names the algorithm.
Where nothing is recorded it is SHA-256.
"""

import hashlib
from pathlib import Path

from blake3 import blake3

from core import versions
from core.errors import DigestUnknown

BLAKE3 = "blake3"
BLAKE3_BYTES = 28
PIECE_BYTES = 1 << 18

Data = bytes | bytearray | memoryview


class Running:
    """A digest of bytes that come piece by piece, by the algorithm of a recorded one.

    Raises:
        DigestUnknown: a newer version recorded it.
    """

    def __init__(self, like: str | None = None) -> None:
        prefix = (like or "").rpartition(":")[0]
        if prefix not in ("", BLAKE3):
            raise DigestUnknown(
                f"This epochd ({versions.own()}) is too old for the digest {like!r}: it knows SHA-256 and BLAKE3, not "
                f"{prefix!r}. Install the version that recorded it or a newer one."
            )
        self._hash = blake3() if prefix == BLAKE3 else hashlib.sha256()

    def update(self, data: Data) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def text(self) -> str:
        """Return the digest of the bytes so far, as it is recorded."""
        if isinstance(self._hash, blake3):
            return f"{BLAKE3}:{self._hash.hexdigest(length=BLAKE3_BYTES)}"
        return self._hash.hexdigest()


def of(data: Data, like: str | None = None) -> str:
    """Return the digest of bytes, by the algorithm of a recorded one.

    Raises:
        DigestUnknown: a newer version recorded it.
    """
    running = Running(like)
    running.update(data)
    return running.text()


def of_checkpoint(data: Data) -> str:
    """Return the digest under which a new checkpoint is published."""
    return of(data, f"{BLAKE3}:")


def of_file(path: Path, like: str | None = None) -> str:
    """Return the digest of a file's bytes, by the algorithm of a recorded one.

    Raises:
        DigestUnknown: a newer version recorded it.
    """
    running = Running(like)
    buffer = bytearray(PIECE_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            running.update(view[:size])
    return running.text()
