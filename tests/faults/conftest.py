from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.harness import MODEL, SPEC
from tests.service import Service


@dataclass
class Reference:
    """A running service, and what an undisturbed run ends with."""

    service: Service
    model: bytes


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with Service(tmp_path_factory.mktemp("faults")) as service:
        job = service.finish(service.submit(SPEC)["id"])
        assert job["status"] == "succeeded", (job["error"], service.log("worker-0"))
        yield Reference(service, service.artifact(job["id"], MODEL))
