"""The compose files and the image, as far as reading them tells. Running them is the compose lab's work."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.db import migrate
from core.settings import Settings

ROOT = Path(__file__).parents[2]
SECRETS = ("EPOCHD_API_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return load("docker-compose.yml")["services"]


def example_settings() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_compose_has_the_services_of_the_design(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"postgres", "redis", "migrate", "api", "worker"}


def test_only_the_api_publishes_a_port_and_only_on_loopback_by_default(services: dict[str, dict[str, Any]]) -> None:
    published = {name: body["ports"] for name, body in services.items() if "ports" in body}
    assert published == {"api": ["${EPOCHD_PUBLISH:-127.0.0.1:8000}:8000"]}
    assert example_settings()["EPOCHD_PUBLISH"].startswith("127.0.0.1:")


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml", "Dockerfile"])
def test_no_secret_stands_in_a_committed_file(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "changeme" not in text
    assert not re.search(r"epk_\w{8}", text)


@pytest.mark.parametrize("secret", SECRETS)
def test_compose_refuses_to_start_without_a_secret(secret: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{" + secret + r"[^}]*\}", text)
    assert used
    assert all(use.startswith("${" + secret + ":?") for use in used)


def test_the_example_settings_are_complete_and_name_what_to_change() -> None:
    settings = example_settings()
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert asked == set(settings)
    text = (ROOT / ".env.example").read_text()
    for secret in SECRETS:
        comment = text[: text.index(f"\n{secret}=")].rsplit("\n\n", 1)[-1]
        assert "CHANGE" in comment or secret == "REDIS_PASSWORD"
        assert re.fullmatch(r"[\w]+", settings[secret]), "it stands in a URL"
    assert settings["EPOCHD_API_KEY"].startswith("epk_")


def test_services_that_stay_start_again_and_get_time_to_stop(services: dict[str, dict[str, Any]]) -> None:
    for name, body in services.items():
        assert body["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert body["stop_grace_period"] == "60s", name


def test_api_and_worker_wait_for_the_migration_and_that_for_the_database(services: dict[str, dict[str, Any]]) -> None:
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("api", "worker"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert services[name]["depends_on"]["redis"] == {"condition": "service_started"}, "a broker away is no reason"


def test_the_migration_service_brings_a_database_to_this_programs_revision(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'epochd.db'}"
    _, *arguments = services["migrate"]["command"]
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=os.environ | {"EPOCHD_DATABASE_URL": url}, check=True)
    assert migrate.current(url) == migrate.head()


def test_every_service_that_stays_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    assert all(services[name]["healthcheck"]["test"] for name in services if name != "migrate")


def test_database_and_artifacts_live_in_named_volumes(services: dict[str, dict[str, Any]]) -> None:
    assert {"database", "artifacts"} <= set(load("docker-compose.yml")["volumes"])
    assert services["postgres"]["volumes"] == ["database:/var/lib/postgresql/data"]
    assert "artifacts:/var/lib/epochd" in services["api"]["volumes"]
    assert services["worker"]["volumes"] == services["api"]["volumes"]


def test_the_worker_has_shared_memory_for_tensors(services: dict[str, dict[str, Any]]) -> None:
    assert services["worker"]["shm_size"] == "1gb"


def test_redis_asks_for_a_password(services: dict[str, dict[str, Any]]) -> None:
    command = services["redis"]["command"]
    assert command[command.index("--requirepass") + 1].startswith("${REDIS_PASSWORD:?")


def test_the_gpu_file_adds_a_worker_with_a_reservation_and_changes_nothing_else() -> None:
    services = load("docker-compose.gpu.yml")["services"]
    assert set(services) == {"worker-gpu"}
    worker = services["worker-gpu"]
    assert worker["environment"] == {"EPOCHD_QUEUES": "gpu"}
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_every_epochd_variable_of_the_compose_files_is_a_setting() -> None:
    known = {f"EPOCHD_{name.upper()}" for name in Settings.model_fields}
    given = {
        name
        for file in ("docker-compose.yml", "docker-compose.gpu.yml")
        for body in load(file)["services"].values()
        for name in body.get("environment", {})
        if name.startswith("EPOCHD_")
    }
    assert given <= known


class TestDockerfile:
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.rindex("\nFROM ") :]

    def test_the_final_stage_runs_as_a_user_of_its_own(self) -> None:
        assert re.search(r"^USER epochd$", self.final, re.MULTILINE)

    def test_the_final_stage_has_no_build_tools(self) -> None:
        assert not re.search(r"pip install|apt-get|\buv\b|gcc", self.final)
        assert "uv pip uninstall --quiet --python /opt/epochd/bin/python pip" in self.text

    def test_packages_are_checked_against_their_hashes(self) -> None:
        assert "--require-hashes --requirement /src/requirements.txt" in self.text

    def test_both_stages_start_from_the_same_python(self) -> None:
        assert len(set(re.findall(r"^FROM (\S+)", self.text, re.MULTILINE))) == 1

    def test_uv_is_the_version_of_the_makefile(self) -> None:
        makefile = (ROOT / "Makefile").read_text()
        version = re.search(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
        assert version
        assert f"ARG UV_VERSION={version[1]}\n" in self.text

    def test_it_has_a_health_check_and_names_the_data_volume(self) -> None:
        assert "HEALTHCHECK" in self.final
        assert "EPOCHD_DATA_DIR=/var/lib/epochd" in self.final
        assert re.search(r"^VOLUME .*/var/lib/epochd\b", self.final, re.MULTILINE)

    def test_every_package_of_the_wheel_is_copied_into_the_build(self) -> None:
        import tomllib

        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
        for folder in [*wheel["packages"], *wheel["force-include"]]:
            assert f"COPY {folder} /src/{folder}\n" in self.text
            assert f"!{folder}\n" in (ROOT / ".dockerignore").read_text()
