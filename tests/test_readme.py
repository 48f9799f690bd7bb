"""Everything that the README shows is run here, in its order, against the service that it starts."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.settings import GIB, MIB, Settings
from core.spec import components
from tests.service import ROOT, WITH_US, free_port, wait_until

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Block:
    """A fenced block and the comment that stands before it."""

    mark: str
    language: str
    text: str


BLOCKS = [
    Block(mark or "", language, text)
    for mark, language, text in re.findall(
        r"(?:<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for /tmp."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Start the service with the README's own command, on a port and a folder of the test's."""
    (block,) = [block for block in BLOCKS if block.mark == "run: service"]
    port = free_port()
    command = block.text.strip().replace(".venv/bin", str(BIN))
    log = folder / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [*WITH_US, *command.split(), "--port", str(port), "--data-dir", str(folder / "data")],
            cwd=ROOT, env=environment(), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: "epochd is ready at" in log.read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        up.terminate()
        assert up.wait(90) == 0


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")} | more


def test_every_block_is_run_or_says_why_not() -> None:
    for block in BLOCKS:
        assert block.language == "mermaid" or block.mark.startswith(("run", "not run by tests/test_readme.py: ")), block
    assert [block.language for block in BLOCKS if block.mark == "run"] == ["sh", "sh", "python"]


def test_curl_command_line_and_python_do_what_the_page_says(folder: Path, url: str) -> None:
    said = []
    for block in (block for block in BLOCKS if block.mark == "run"):
        text = block.text.replace("http://127.0.0.1:8000", url).replace("/tmp/", f"{folder}/")
        text = text.replace("$PWD/.venv/bin", str(BIN))
        shell = ["bash", "-euo", "pipefail", "-c", text]
        command = shell if block.language == "sh" else [sys.executable, "-W", "error", "-c", text]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(EPOCHD_URL=url), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    curl, line, python = said
    assert '"early_stopping"' in curl
    assert "this spec can run" in line
    assert "succeeded" in line
    assert python.splitlines()[-1].startswith("succeeded ")
    assert (folder / "digits.csv").read_text().startswith("epoch,")
    assert (folder / "model.safetensors").stat().st_size > 4810 * 4


def test_the_limits_are_those_of_the_code() -> None:
    defaults = Settings.model_fields
    assert f"| {defaults['max_body_bytes'].default // MIB} MiB |" in README
    assert f"| {components.MAX_LAYERS:,}, {components.MAX_NESTING} deep |" in README
    assert f"| {defaults['max_parameters'].default:,} |" in README
    upload, unpacked = (defaults[name].default // GIB for name in ("max_upload_bytes", "max_unpacked_bytes"))
    assert f"| {upload} GiB, {unpacked} GiB |" in README
