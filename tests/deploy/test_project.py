"""What a stranger's first commands rest on: the Makefile, the pins, the pages."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.settings import Settings

ROOT = Path(__file__).parents[2]


def test_make_without_a_verb_lists_at_most_fifteen() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    verbs = {line.split()[1] for line in shown}
    assert {
        "install",
        "demo",
        "run",
        "test",
        "faults",
        "mutants",
        "bench",
        "check",
        "generate",
        "requirements",
    } <= verbs
    assert len(shown) <= 15
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == verbs


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_pins_have_hashes_and_name_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    pins = re.findall(r"^([\w.\[\]-]+)==\S+", text, re.MULTILINE)
    assert len(pins) > 50
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=\w)", text))
    assert "://" not in text
    assert "--index" not in text


def test_the_pins_of_development_are_those_of_the_service_and_more() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.\[\]-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE))

    service, development = pins("requirements.txt"), pins("requirements-dev.txt")
    assert service.items() <= development.items()


def test_the_configuration_page_names_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    table = dict(re.findall(r"^\| `EPOCHD_(\w+)` \| (.+?) \|", page, re.MULTILINE))
    expected = {name.upper(): _written(field.get_default()) for name, field in Settings.model_fields.items()}
    assert table == expected


def _written(default: object) -> str:
    if default is None or isinstance(default, SecretStr):
        return "none"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_decisions_page_lists_every_decision() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.glob("0*.md")}


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=lambda path: path.name)
def test_a_decision_has_context_decision_consequences_and_alternatives(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.name[:4]} ")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == [
        "Context", "Decision", "Consequences", "Alternatives",
    ]  # fmt: skip


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert [(str(page), link) for page, link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.json")), ids=lambda path: path.stem)
def test_an_example_is_a_job_spec(path: Path) -> None:
    spec = json.loads(path.read_text())
    assert {"data", "model", "loss", "optimizer", "epochs", "batch_size"} <= set(spec)
