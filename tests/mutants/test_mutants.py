"""The list fits the code: every defect can be planted, and the tests that have to see it exist."""

import ast
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.__main__ import is_caught
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant, NotPlantable
from tests.mutants.running import ROOT, Run, failures, run_tests
from tests.mutants.witness import strangers

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_seen"><failure message="AssertionError: assert 1 == 2">…</failure></testcase>
<testcase classname="tests.a" name="test_broken"><failure message="NameError: name 'x'">…</failure></testcase>
<testcase classname="tests.a" name="test_setup"><error message="failed on setup">…</error></testcase>
<testcase classname="tests.a" name="test_sound" />
</testsuite></testsuites>"""


def defined(file: str) -> set[str]:
    """Return the tests of a file as node ids name them, without parameters."""
    names: set[str] = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return names


def test_names_are_given_once() -> None:
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_defect_can_be_planted_and_its_tests_exist(mutant: Mutant, tmp_path: Path) -> None:
    place = tmp_path / mutant.file
    place.parent.mkdir(parents=True)
    shutil.copy(ROOT / mutant.file, place)
    sound = ast.parse(place.read_text())
    mutant.plant(tmp_path)
    assert ast.dump(ast.parse(place.read_text())) != ast.dump(sound)
    for killer in mutant.killers:
        file, _, name = killer.partition("::")
        assert name.partition("[")[0] in defined(file), killer


@pytest.mark.parametrize("text", ["x = 1\n", "if a: pass\nif a: pass\n"])
def test_text_that_is_gone_or_doubled_is_stale(text: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(text)
    with pytest.raises(NotPlantable, match=r"one: its text occurs [02] times in module\.py"):
        Mutant("one", "module.py", "if a:", "if b:", (), "").plant(tmp_path)


def test_only_a_test_that_failed_by_itself_has_seen_a_defect(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert list(failures(report)) == ["tests.a::test_seen"]


@pytest.mark.parametrize(
    ("status", "failed", "caught"),
    [(1, ("a",), True), (1, (), False), (0, (), False), (2, ("a",), False), (99, ("a",), False), (124, ("a",), False)],
)
def test_run_that_did_not_end_as_it_should_catches_nothing(status: int, failed: tuple[str, ...], caught: bool) -> None:
    assert is_caught(Run(status, failed, 1.0, "")) is caught


def test_code_from_elsewhere_is_noticed(tmp_path: Path) -> None:
    assert strangers(ROOT) == []
    assert "tests.mutants.witness" in strangers(tmp_path)


def test_run_of_a_copy_imports_the_copy(tmp_path: Path) -> None:
    """The package that is installed for development names the checkout: a copy has to come before it."""
    copy = tmp_path / "copy"
    for name in ("core/__init__.py", "core/ids.py", "tests/mutants/witness.py", "pyproject.toml"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "core" / "ids.py").write_text("PLANTED = True\n")
    (copy / "tests" / "test_planted.py").write_text(
        "from core import ids\n\ndef test_planted():\n    assert not ids.PLANTED\n"
    )
    run = run_tests(copy, ["tests/test_planted.py"])
    assert (run.status, run.failed) == (1, ("tests.test_planted::test_planted",)), run.output
