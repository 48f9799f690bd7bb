import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import ROOT, Service


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that is never committed."""
    folder = Path(os.environ.get("EPOCHD_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MNIST").is_dir():
        pytest.skip(f"the real MNIST is not in {folder}; set EPOCHD_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for all tests that leave it as they found it: its start costs more than most of them."""
    folder = tmp_path_factory.mktemp("service")
    data = os.environ.get("EPOCHD_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    with Service(folder, {"EPOCHD_DATASETS_DIR": data}) as running:
        yield running
