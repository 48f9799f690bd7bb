"""Children forked from the template: what they have, what they may not, and how their end is told."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from core.errors import ChildFailed
from core.process import Child, Limits, Template, call
from tests.service import eventually

CHILDREN = Path(__file__).parent / "children"


def make_template(**named: object) -> Template:
    return Template(["child_entries"], env={"PYTHONPATH": str(CHILDREN)}, **named)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with make_template() as template:
        template.wait_ready()
        yield template


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def first(child: Child) -> dict[str, object]:
    message = child.receive(30.0)
    assert message is not None
    return message


def test_call_returns_the_answer(template: Template) -> None:
    assert call(template, "child_entries.echo", {"a": [1, "é"]}, seconds=30) == {"echo": {"a": [1, "é"]}}


def test_request_of_a_mebibyte_arrives_whole(template: Template) -> None:
    text = "x" * (1 << 20)
    assert call(template, "child_entries.echo", {"text": text}, seconds=30) == {"echo": {"text": text}}


def test_messages_larger_than_the_pipe_arrive_in_order(template: Template) -> None:
    with template.spawn("child_entries.count", {"n": 20, "size": 300_000}) as child:
        messages = list(child.messages())
    assert [message["number"] for message in messages] == list(range(20))
    assert {len(message["text"]) for message in messages} == {300_000}


def test_receive_without_a_message_returns_none_at_once(template: Template) -> None:
    with template.spawn("child_entries.answer_until_closed", {}) as child:
        assert child.receive() is None
        child.send({"n": 1})
        assert first(child) == {"got": {"n": 1}}


def test_child_ends_when_its_owner_closes_the_pipes(template: Template) -> None:
    child = template.spawn("child_entries.answer_until_closed", {})
    os.close(child._control_fd)  # type: ignore[arg-type]
    child._control_fd = None
    how = child.wait(10.0)
    child.close()
    assert how is not None
    assert how.code == 0


def test_child_has_its_own_session_and_one_thread(template: Template) -> None:
    facts = call(template, "child_entries.facts", {}, seconds=30)
    assert facts["sid"] == facts["pid"]
    assert facts["threads"] == 1
    assert facts["sigterm_is_default"]
    assert facts["core"] == [0, 0]


def test_child_collects_its_own_garbage_and_leaves_the_templates_alone(template: Template) -> None:
    facts = call(template, "child_entries.facts", {}, seconds=30)
    assert facts["collects"]
    assert facts["frozen"] > 1000


def test_child_sees_named_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_DATABASE_URL", "postgresql://user:hunter2@db/epochd")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with make_template() as template:
        facts = call(template, "child_entries.facts", {}, seconds=30)
    assert "hunter2" not in facts["initial_environ"]
    assert "hunter2" not in str(facts["environ"])
    assert facts["environ"]["OMP_WAIT_POLICY"] == "PASSIVE"


def test_child_inherits_no_descriptor_of_template_or_siblings(template: Template) -> None:
    with template.spawn("child_entries.answer_until_closed", {}):
        facts = call(template, "child_entries.facts", {}, seconds=30)
    assert not [name for name in facts["fds"] if name.startswith(("socket:", "anon_inode:", "/memfd:"))]
    assert len([name for name in facts["fds"] if name.startswith("pipe:")]) == 2


def test_child_works_in_its_folder_with_its_variables(template: Template, tmp_path: Path) -> None:
    with template.spawn("child_entries.facts", {}, cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": "3"}) as child:
        facts = first(child)
    assert facts["cwd"] == str(tmp_path)
    assert facts["environ"]["CUDA_VISIBLE_DEVICES"] == "3"  # type: ignore[index]


def test_uncaught_exception_is_exit_code_1_with_its_traceback_in_the_log(template: Template, tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    with template.spawn("child_entries.fail", {}, log=log) as child:
        how = child.wait(30.0)
    assert how is not None
    assert (how.code, how.signal) == (1, None)
    assert "ValueError: this one fails on purpose" in log.read_text()


def test_exit_code_and_largest_size_are_told(template: Template) -> None:
    with template.spawn("child_entries.leave", {"code": 7}) as child:
        how = child.wait(30.0)
    assert how is not None
    assert how.code == 7
    assert how.max_rss_bytes is not None
    assert how.max_rss_bytes > 1 << 20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
def test_signal_is_told(template: Template, number: signal.Signals) -> None:
    with template.spawn("child_entries.kill_itself", {"signal": int(number)}) as child:
        how = child.wait(30.0)
    assert how is not None
    assert (how.code, how.signal) == (None, number)


def test_exit_handlers_do_not_run(template: Template, tmp_path: Path) -> None:
    with template.spawn("child_entries.leave_with_handler", {"path": str(tmp_path / "ran")}) as child:
        child.wait(30.0)
    assert not (tmp_path / "ran").exists()


def test_kill_ends_the_whole_group(template: Template) -> None:
    with template.spawn("child_entries.hang", {}) as child:
        pids = first(child)
        child.kill()
        how = child.wait(30.0)
    assert how is not None
    assert how.signal == signal.SIGKILL
    assert eventually(lambda: not is_running(int(str(pids["grandchild"]))))


def test_call_that_takes_too_long_is_killed(template: Template) -> None:
    with pytest.raises(ChildFailed, match=r"did not answer within 0\.5 s"):
        call(template, "child_entries.sleep", {}, seconds=0.5)
    assert eventually(lambda: not psutil.Process(template.pid).children())


def test_call_whose_child_dies_says_how(template: Template) -> None:
    with pytest.raises(ChildFailed, match="SIGSEGV"):
        call(template, "child_entries.kill_itself", {"signal": int(signal.SIGSEGV)}, seconds=30)


def test_log_is_capped_and_keeps_its_end(template: Template, tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    limits = Limits(log_bytes=100_000)
    with template.spawn("child_entries.print_much", {"lines": 20_000}, limits=limits, log=log) as child:
        child.wait(60.0)
    assert log.stat().st_size <= 100_000
    assert log.read_text().rstrip().splitlines()[-1].startswith("line 19999 ")
    assert list(tmp_path.iterdir()) == [log]


def test_memory_limit_refuses_a_large_block(template: Template) -> None:
    limits = Limits(memory_bytes=64 << 20)
    assert call(template, "child_entries.take_memory", {"bytes": 256 << 20}, seconds=30, limits=limits) == {
        "refused": True
    }
    assert (
        call(template, "child_entries.take_memory", {"bytes": 8 << 20}, seconds=30, limits=limits)["refused"] is False
    )


def test_file_limit_is_an_error_in_the_child(template: Template, tmp_path: Path) -> None:
    limits = Limits(file_bytes=1000)
    with template.spawn("child_entries.write_file", {"bytes": 5000}, limits=limits, cwd=tmp_path) as child:
        assert first(child) == {"errno": errno.EFBIG}


def test_children_of_many_threads_do_not_mix(template: Template) -> None:
    def ask(number: int) -> object:
        return call(template, "child_entries.echo", {"n": number}, seconds=60)["echo"]["n"]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(40))) == list(range(40))


def test_children_of_a_dead_template_count_as_killed_and_the_next_one_starts_again() -> None:
    with make_template() as template:
        child = template.spawn("child_entries.hang", {})
        pids = first(child)
        os.kill(template.pid or 0, signal.SIGKILL)
        how = child.wait(10.0)
        assert how is not None
        assert how.signal == signal.SIGKILL
        assert eventually(lambda: not is_running(int(str(pids["pid"]))))
        child.close()
        assert eventually(lambda: not template.ready)
        assert eventually(lambda: _answers(template))


def _answers(template: Template) -> bool:
    try:
        return call(template, "child_entries.echo", {}, seconds=30) == {"echo": {}}
    except ChildFailed:
        return False


def test_template_that_cannot_import_says_so_and_pauses() -> None:
    with Template(["no_such_module"]) as template:
        with pytest.raises(ChildFailed, match="died while it imported"):
            template.wait_ready(30.0)
        with pytest.raises(ChildFailed, match="next start in"):
            template.start()


def test_template_and_children_die_with_their_owner(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from core.process import Template\n"
        f"template = Template(['child_entries'], env={{'PYTHONPATH': {str(CHILDREN)!r}}})\n"
        "child = template.spawn('child_entries.hang', {})\n"
        "print(template.pid, child.receive(30)['pid'], flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert all(is_running(pid) for pid in pids)
        owner.kill()
    assert eventually(lambda: not any(is_running(pid) for pid in pids))


def test_closed_template_starts_nothing() -> None:
    template = make_template()
    template.wait_ready()
    template.close()
    with pytest.raises(ChildFailed):
        template.spawn("child_entries.echo", {})
