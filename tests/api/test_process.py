"""`python -m api` as operators start it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.service import ROOT, WITH_US

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[Start]:
    """Start the service with these settings; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> subprocess.Popen[str]:
        ours = {"EPOCHD_DATA_DIR": str(tmp_path / "home"), "EPOCHD_PORT": str(port)}
        theirs = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        process = subprocess.Popen(
            [*WITH_US, sys.executable, "-m", "api"],
            cwd=ROOT,
            env={**theirs, **ours, **{f"EPOCHD_{name.upper()}": value for name, value in settings.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> str:
    """Wait for the line that says so, and return it."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_migrates_says_when_it_is_ready_and_ends_well_on_sigterm(start: Start, port: int) -> None:
    process = start()

    assert ready(process) == f"epochd api ready on http://127.0.0.1:{port}"
    assert httpx.get(f"http://127.0.0.1:{port}/v1/jobs").json()["data"] == []
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0


def test_sigterm_ends_a_wait_and_the_process_soon(start: Start, port: int) -> None:
    process = start()
    ready(process)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
        spec = json.loads((ROOT / "examples" / "digits-early-stopping.json").read_text())
        job = client.post("/v1/jobs", json=spec).json()
        with client.stream("GET", f"/v1/jobs/{job['id']}/events/stream") as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            list(lines)

    assert process.wait(30) == 0


def test_other_address_without_a_key_is_refused(start: Start) -> None:
    process = start(host="0.0.0.0")

    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "EPOCHD_API_KEY" in errors


def test_other_address_with_a_key_asks_for_it(start: Start, port: int) -> None:
    process = start(host="0.0.0.0", api_key="epk_first")
    ready(process)

    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs", headers={"Authorization": "Bearer epk_first"}).status_code == 200


def test_wrong_setting_is_named(start: Start) -> None:
    process = start(slots="none")

    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "slots" in errors


NO_TORCH = """
import json, sys
from pathlib import Path
from starlette.testclient import TestClient
from api.app import create_app
from core.db import migrate
from core.process import Template
from core.settings import load_settings

settings = load_settings()
migrate.upgrade(settings.sqlalchemy_url)
template = Template([])
template.close()
app = create_app(settings, template=template)
with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
    spec = json.loads(Path("examples/digits-early-stopping.json").read_text())
    job = client.post("/v1/jobs", json=spec).json()
    client.post("/v1/preflight", json=spec)
    upload = client.post("/v1/datasets", files={"file": ("t.csv", b"a,b\\n1,2\\n")}, data={"format": "csv"})
    assert upload.status_code == 201, upload.text
    for path in ("", "/metrics", "/decisions", "/events", "/attempts", "/logs", "/artifacts"):
        assert client.get(f"/v1/jobs/{job['id']}{path}").status_code == 200
    for path in ("/v1/components/layers", "/v1/queue", "/v1/workers", "/metrics", "/openapi.json", "/readyz"):
        assert client.get(path).status_code == 200
print(json.dumps([name for name in ("torch", "torchvision", "sklearn", "core.train") if name in sys.modules]))
"""


def test_torch_is_not_imported_by_serving(tmp_path: Path) -> None:
    env = {**os.environ, "EPOCHD_DATA_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_start_is_fast_because_nothing_heavy_is_imported() -> None:
    code = "import sys, api.app; print([m for m in ('torch', 'sklearn', 'pyarrow', 'numpy') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
