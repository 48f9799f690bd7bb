"""The page of the spec: committed as it is written from the models."""

import re

from core.spec import page
from core.spec.parts import parts
from tests.service import ROOT


def test_committed_page_is_written_from_the_models() -> None:
    assert page.FILE.read_text(encoding="utf-8") == page.text(), "run `python -m core.spec.page`"


def test_page_has_a_row_for_every_field_with_what_it_takes_and_its_default() -> None:
    lines = page.text().splitlines()
    for model in parts().values():
        for name, field in model.model_fields.items():
            rows = [line for line in lines if line.startswith(f"| `{field.alias or name}` | ")]
            assert any("| required |" in row for row in rows) or not field.is_required(), name
            assert all(" |  | " not in row for row in rows), rows
    assert "| `epochs` | integer ≥ 1, ≤ 10,000,000 | required | Passes over the training set. |" in lines
    assert '| `mode` | `"min"`, `"max"` | none |' in page.text()


def test_links_lead_to_headings() -> None:
    text = page.text()
    headings = {
        re.sub(r"[^\w-]", "", line[3:].lower().replace(" ", "-")) for line in text.splitlines() if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_diagnoses_are_those_that_the_trainer_makes() -> None:
    """Read, not imported: the spec's tests need no torch."""
    source = (ROOT / "core" / "train" / "diagnosing.py").read_text(encoding="utf-8")
    said = source.partition("    code    ")[2].partition("\n\n")[0]
    table = page.text().partition("## Diagnoses")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == re.findall(r"^    (\w+)", said, re.MULTILINE)
