import os
import time
from pathlib import Path

from core.datasets.leftovers import OLD_SECONDS, sweep


def test_old_temporary_files_and_folders_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-old").mkdir()
    (tmp_path / ".tmp-old" / "inputs.npy").write_bytes(b"half")
    for name in (".tmp-file", ".tmp-new", "kept"):
        (tmp_path / name).write_bytes(b"x")
    ago = time.time() - OLD_SECONDS - 60
    for name in (".tmp-old", ".tmp-file", "kept"):
        os.utime(tmp_path / name, (ago, ago))
    sweep(tmp_path, ".tmp-")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-new", "kept"]
