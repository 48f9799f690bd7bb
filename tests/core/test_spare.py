"""A child that is forked before its request comes is as one that is forked for it; it dies unseen and is replaced."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.process import Limits, Template, call
from core.spare import Spare
from tests.core.test_process import CHILDREN, first, is_running
from tests.service import eventually, spares

ROOT = Path(__file__).parents[2]


def make_template(spare: str = "child_entries.warm_up", **named: Any) -> Template:
    return Template(["child_entries"], env={"PYTHONPATH": str(CHILDREN)}, spare=spare, **named)


@pytest.fixture(scope="module")
def shared_template() -> Iterator[Template]:
    with make_template() as template:
        template.wait_ready()
        yield template


@pytest.fixture
def template(shared_template: Template) -> Template:
    """A template whose spare waits, and that has no other child."""
    pid = shared_template.pid
    assert eventually(lambda: len(spares(pid)) == len(psutil.Process(pid).children()) == 1)
    return shared_template


def spare_of(template: Template) -> psutil.Process:
    assert eventually(lambda: spares(template.pid))
    [spare] = spares(template.pid)
    return spare


def test_request_goes_to_the_spare_and_the_next_spare_follows(template: Template) -> None:
    spare = spare_of(template)
    with template.spawn("child_entries.origin", {}) as child:
        facts = first(child)
        assert child.pid == facts["pid"] == spare.pid
        assert facts["is_warm"]
        assert facts["name"] == psutil.Process(template.pid).name()
        assert spare_of(template).pid != child.pid


def test_requests_without_a_spare_are_forked_for(template: Template) -> None:
    def ask(number: int) -> object:
        return call(template, "child_entries.echo", {"n": number}, seconds=60)["echo"]["n"]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(40))) == list(range(40))


def test_spare_takes_folder_variables_output_and_limits_from_the_request(template: Template, tmp_path: Path) -> None:
    spare, log = spare_of(template), tmp_path / "log"
    limits = Limits(open_files=123)
    env = {"CUDA_VISIBLE_DEVICES": "3"}
    with template.spawn("child_entries.facts", {}, cwd=tmp_path, env=env, log=log, limits=limits) as child:
        facts = first(child)
    assert facts["pid"] == facts["sid"] == spare.pid
    assert facts["cwd"] == str(tmp_path)
    assert facts["environ"]["CUDA_VISIBLE_DEVICES"] == "3"  # type: ignore[index]
    assert facts["files"] == [123, 123]
    assert (facts["threads"], facts["core"], facts["sigterm_is_default"]) == (1, [0, 0], True)
    spare = spare_of(template)
    with template.spawn("child_entries.fail", {}, log=log) as child:
        assert child.wait(30.0) is not None
    assert child.pid == spare.pid
    assert "ValueError: this one fails on purpose" in log.read_text()


def test_spare_holds_no_descriptor_of_its_template_or_of_other_children(template: Template) -> None:
    with template.spawn("child_entries.origin", {}) as other:
        first(other)
        spare = spare_of(template)
        assert len(_links(spare.pid, "socket:")) == 1
        assert not _links(spare.pid, "pipe:", "anon_inode:", "/memfd:")
        with template.spawn("child_entries.facts", {}) as child:
            facts = first(child)
    assert facts["pid"] == spare.pid
    fds = [str(name) for name in facts["fds"]]  # type: ignore[union-attr]
    assert not [name for name in fds if name.startswith(("socket:", "anon_inode:", "/memfd:"))]
    assert len([name for name in fds if name.startswith("pipe:")]) == 2


def _links(pid: int, *kinds: str) -> list[str]:
    links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if int(fd.name) > 2]
    return [link for link in links if link.startswith(kinds)]


def test_memory_limit_is_the_one_of_a_child_that_is_forked_for_its_request(template: Template) -> None:
    limits = Limits(memory_bytes=128 << 20)
    spare = spare_of(template)
    with (
        template.spawn("child_entries.origin", {}, limits=limits) as warm,
        template.spawn("child_entries.origin", {}, limits=limits) as cold,
    ):
        ours, theirs = first(warm), first(cold)
    assert (ours["pid"], ours["is_warm"], theirs["is_warm"]) == (spare.pid, True, False)
    assert abs(ours["data"][0] - theirs["data"][0]) < 8 << 20  # type: ignore[index]


def test_spare_that_dies_is_reaped_and_replaced(template: Template) -> None:
    spare = spare_of(template)
    spare.kill()
    assert call(template, "child_entries.echo", {}, seconds=30) == {"echo": {}}
    assert eventually(lambda: not psutil.pid_exists(spare.pid))
    assert spare_of(template).pid != spare.pid


def test_request_of_a_spare_that_stands_still_goes_to_another_child(template: Template) -> None:
    spare = spare_of(template)
    spare.suspend()
    with template.spawn("child_entries.origin", {}) as child:
        assert first(child)["pid"] == child.pid != spare.pid
        assert eventually(lambda: not psutil.pid_exists(spare.pid))


@pytest.mark.parametrize("warm_up", ["never_warm", "rest_for_long"])
def test_request_interrupts_the_warm_up_and_its_rests(warm_up: str) -> None:
    with make_template(f"child_entries.{warm_up}") as template:
        template.wait_ready()
        spare = spare_of(template)
        with template.spawn("child_entries.origin", {}) as child:
            assert first(child)["pid"] == spare.pid


def test_spare_whose_warm_up_fails_says_so_and_takes_its_request(tmp_path: Path) -> None:
    log = tmp_path / "template.log"
    with make_template("child_entries.stumble", log=log) as template:
        template.wait_ready()
        assert eventually(lambda: "this warm-up fails on purpose" in log.read_text())
        spare = spare_of(template)
        with template.spawn("child_entries.origin", {}) as child:
            assert first(child)["pid"] == spare.pid


def test_spare_ends_with_its_template() -> None:
    with make_template() as template:
        template.wait_ready()
        spare = spare_of(template)
    assert eventually(lambda: not is_running(spare.pid))


def test_spare_ends_with_the_owner_of_its_template() -> None:
    program = (
        "import time\n"
        "from core.process import Template\n"
        "template = Template(['child_entries'], env="
        f"{{'PYTHONPATH': {str(CHILDREN)!r}}}, spare='child_entries.warm_up')\n"
        "template.wait_ready()\n"
        "print(template.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert eventually(lambda: spares(pid))
        [spare] = spares(pid)
        owner.kill()
    assert eventually(lambda: not any(is_running(one) for one in (pid, spare.pid)))


@pytest.mark.parametrize("is_gone", [True, False])
def test_spare_that_does_not_answer_never_will(is_gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.spare.TAKE_SECONDS", 0.1)
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process, its:
        pidfd = os.pidfd_open(process.pid)
        spare = Spare(process.pid, pidfd, mine)
        if is_gone:
            process.kill()
            process.wait()
            its.close()
        assert not spare.hand_over(b"{}", [])
        assert process.wait(20) == -signal.SIGKILL
        spare.close()
        os.close(pidfd)
