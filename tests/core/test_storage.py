import hashlib
import uuid
from pathlib import Path

import pytest

from core import digests
from core.errors import DigestUnknown
from core.storage import Storage


@pytest.fixture(params=["folder", "file-url", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    urls = {
        "folder": str(tmp_path / "kept"),
        "file-url": (tmp_path / "kept").as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}/kept",
    }
    return Storage(urls[request.param])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given"
    path.write_bytes(b"weights" * 1000)
    return path


def test_what_was_put_can_be_read_with_its_digest(storage: Storage, file: Path) -> None:
    stored = storage.put_file(file, "job_1/3/model.safetensors")
    assert stored == (hashlib.sha256(file.read_bytes()).hexdigest(), 7000)
    with storage.open("job_1/3/model.safetensors") as opened:
        assert opened.read() == file.read_bytes()
    assert file.exists()


def test_put_replaces_what_was_there(storage: Storage, file: Path) -> None:
    storage.put_file(file, "a")
    file.write_bytes(b"new")
    storage.put_file(file, "a")
    with storage.open("a") as opened:
        assert opened.read() == b"new"


def test_fetch_copies_to_a_file(storage: Storage, file: Path, tmp_path: Path) -> None:
    stored = storage.put_file(file, "a/b")
    assert storage.fetch("a/b", tmp_path / "new" / "copy") == stored
    assert digests.of_file(tmp_path / "new" / "copy") == stored[0]


def test_the_digest_is_of_the_kind_that_is_recorded(storage: Storage, file: Path, tmp_path: Path) -> None:
    recorded = digests.of_checkpoint(file.read_bytes())
    assert storage.put_file(file, "a/b", recorded) == (recorded, 7000)
    assert storage.fetch("a/b", tmp_path / "copy", recorded) == (recorded, 7000)
    with pytest.raises(DigestUnknown):
        storage.fetch("a/b", tmp_path / "other", "next:0")
    assert {path.name for path in tmp_path.iterdir()} <= {"given", "kept", "copy"}


def test_what_is_not_there_is_said_so(storage: Storage, tmp_path: Path) -> None:
    assert not storage.exists("a/b")
    with pytest.raises(FileNotFoundError):
        storage.open("a/b")
    with pytest.raises(FileNotFoundError):
        storage.fetch("a/b", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_delete_removes_one_and_repeats_quietly(storage: Storage, file: Path) -> None:
    for key in ("a/b", "a/c"):
        storage.put_file(file, key)
    for _ in range(2):
        storage.delete("a/b")
    assert (storage.exists("a/b"), storage.exists("a/c")) == (False, True)


def test_delete_prefix_removes_a_folder_but_not_its_neighbour(storage: Storage, file: Path) -> None:
    for key in ("job_1/1/a", "job_1/2/b", "job_10/1/a"):
        storage.put_file(file, key)
    for _ in range(2):
        storage.delete_prefix("job_1/")
    assert [storage.exists(key) for key in ("job_1/1/a", "job_1/2/b", "job_10/1/a")] == [False, False, True]


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", ".hidden", "a/.tmp", "a\\b", "a\0", "a\n", "x" * 501]
)
def test_key_that_could_leave_the_storage_is_refused(key: str, storage: Storage) -> None:
    with pytest.raises(ValueError, match="is no storage key"):
        storage.exists(key)


def test_local_path_is_known_for_folders_only(tmp_path: Path) -> None:
    assert Storage(str(tmp_path)).local_path("a/b") == tmp_path / "a" / "b"
    assert Storage("memory://x").local_path("a/b") is None


def test_put_that_fails_leaves_what_was_there_and_no_temp_file(tmp_path: Path, file: Path) -> None:
    storage = Storage(str(tmp_path / "kept"))
    storage.put_file(file, "a")
    with pytest.raises(FileNotFoundError):
        storage.put_file(tmp_path / "missing", "a")
    with pytest.raises(IsADirectoryError):
        storage.put_file(tmp_path, "a")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a"]
    assert digests.of_file(tmp_path / "kept" / "a") == digests.of_file(file)
