"""Counters of out-of-memory kills, both versions of control groups."""

from pathlib import Path

from worker.memory import OomCounter


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_kill_in_a_version_2_group_is_seen_once(tmp_path: Path) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self" / "cgroup", "0::/app\n")
    write(cgroups / "app" / "memory.events", "low 0\noom 1\noom_kill 1\n")
    counter = OomCounter(proc, cgroups)
    assert not counter.has_grown()
    write(cgroups / "app" / "memory.events", "low 0\noom 2\noom_kill 2\n")
    assert counter.has_grown()
    assert not counter.has_grown()


def test_kill_in_a_version_1_group_is_seen(tmp_path: Path) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self" / "cgroup", "5:devices:/\n4:cpu,memory:/app\n")
    write(cgroups / "memory" / "app" / "memory.oom_control", "under_oom 0\noom_kill 0\n")
    counter = OomCounter(proc, cgroups)
    write(cgroups / "memory" / "app" / "memory.oom_control", "under_oom 0\noom_kill 1\n")
    assert counter.has_grown()


def test_host_without_counters_has_none(tmp_path: Path) -> None:
    counter = OomCounter(tmp_path, tmp_path)
    assert counter.read() == 0
    assert not counter.has_grown()
