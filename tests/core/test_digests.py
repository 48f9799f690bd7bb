import hashlib
from pathlib import Path

import pytest
from blake3 import blake3

from core import digests
from core.db.tables import Job
from core.errors import DigestUnknown
from core.versions import own

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
ABC_BLAKE3 = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"[:63]
"""The published test vectors of both algorithms; BLAKE3's is cut to 224 bits."""


def test_digest_of_a_new_checkpoint_is_blake3_and_fits_its_column() -> None:
    found = digests.of_checkpoint(b"abc")
    assert found == ABC_BLAKE3
    assert len(found) <= Job.__table__.c.checkpoint_digest.type.length


@pytest.mark.parametrize("like", [None, "0" * 64, ""])
def test_digest_is_sha256_where_nothing_or_one_without_prefix_is_recorded(like: str | None) -> None:
    assert digests.of(b"abc", like) == ABC


@pytest.mark.parametrize("like", [None, "blake3:"])
@pytest.mark.parametrize("size", [0, 1, digests.PIECE_BYTES, 3 * digests.PIECE_BYTES + 5])
def test_file_view_and_pieces_have_the_digest_of_their_bytes(size: int, like: str | None, tmp_path: Path) -> None:
    data = bytes(number % 251 for number in range(size))
    path = tmp_path / "file"
    path.write_bytes(data)
    running = digests.Running(like)
    for start in range(0, size, 100_000):
        running.update(data[start : start + 100_000])
    wanted = f"blake3:{blake3(data).hexdigest(length=28)}" if like else hashlib.sha256(data).hexdigest()
    assert [digests.of_file(path, like), digests.of(memoryview(data), like), running.text()] == [wanted] * 3


@pytest.mark.parametrize("recorded", ["sha3:00", "blake3-256:00", "blake3:wide:00"])
def test_digest_of_a_newer_version_says_that_this_program_is_too_old(recorded: str) -> None:
    with pytest.raises(DigestUnknown, match=rf"epochd \({own()}\) is too old for the digest '{recorded}'"):
        digests.of(b"abc", recorded)
