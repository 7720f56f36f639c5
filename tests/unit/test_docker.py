"""The files in docker/ agree with each other, with the program and with what the tests run against."""

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.skipping import need_program

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")


def test_services() -> None:
    assert set(SERVICES) >= {"kafka", "clickhouse", "migrate", "worker", "prometheus"}
    for name, service in SERVICES.items():
        for dependency in service.get("depends_on", {}):
            assert dependency in SERVICES, f"{name} depends on {dependency}"
        # What runs once is waited for by its end, everything else by its health.
        one_shot = str(service.get("restart")).startswith("on-failure")
        assert one_shot != ("healthcheck" in service), f"{name} has no healthcheck"


def test_images_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    for image in images:
        name, _, tag = image.partition(":")
        assert tag, f"{image} has no tag"
        assert "latest" not in tag
        assert name == "xidmet" or re.search(r"\d+\.\d+", tag), f"{image} names no version"


def test_the_broker_is_the_one_that_tests_run_against() -> None:
    pom = ElementTree.parse(ROOT / "tests" / "support" / "kafka" / "pom.xml")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{pom.findtext('.//{*}properties/{*}kafka.version')}"


def test_the_clickhouse_is_the_one_that_tests_run_against() -> None:
    source = (ROOT / "tests" / "support" / "clickhouse_server.py").read_text("utf-8")
    version = re.search(r'^VERSION = "(\d+\.\d+)\.', source, re.MULTILINE)
    assert version is not None
    assert SERVICES["clickhouse"]["image"] == f"clickhouse/clickhouse-server:{version[1]}"


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), ports


def test_volumes_are_declared_and_mounted_files_exist() -> None:
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).is_file(), f"{source} is missing"
            else:
                used.add(source)
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", OWN)
def test_settings_are_known(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.settings import load_settings

    # A settings file in the working directory would be read too.
    monkeypatch.chdir(tmp_path)
    environment: dict[str, str] = OWN[name]["environment"]
    variables = {key: with_defaults(value) for key, value in environment.items() if key.startswith("XIDMET_")}
    assert all("__" in key for key in variables), "XIDMET_SECTION__KEY is the form of a setting"
    settings = load_settings(environment=variables)
    host, _, port = settings.kafka.bootstrap.partition(":")
    assert host in SERVICES
    assert f"//:{port}" in SERVICES[host]["environment"]["KAFKA_LISTENERS"]


def test_the_worker_writes_to_the_clickhouse_of_compose() -> None:
    url = with_defaults(OWN["worker"]["environment"]["XIDMET_CLICKHOUSE__URL"])
    server = {key: with_defaults(value) for key, value in SERVICES["clickhouse"]["environment"].items()}
    user, password, database = (server[f"CLICKHOUSE_{key}"] for key in ("USER", "PASSWORD", "DB"))
    assert url == f"clickhouse://{user}:{password}@clickhouse:9000/{database}"


def test_commands_exist() -> None:
    import click

    from pipeline.cli.main import cli

    context = click.Context(cli)
    assert re.search(r'^ENTRYPOINT \["xidmet"\]$', DOCKERFILE, re.MULTILINE)
    default = re.search(r'^CMD \["(\w+)"\]$', DOCKERFILE, re.MULTILINE)
    assert default is not None
    for name, *arguments in [[default[1]], *(service["command"] for service in OWN.values())]:
        command = cli.get_command(context, name)
        assert command is not None, f"xidmet has no command {name}"
        # Raises a usage error if it does not take these arguments.
        command.make_context(name, arguments, parent=context)


def test_dockerfile_copies_what_exists_and_runs_without_root() -> None:
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    allowed = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists(), f"{source} is missing"
        assert f"!{source}" in allowed, f"{source} is kept from the build"
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users
    assert users[-1] not in {"root", "0"}
    for service in OWN.values():
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_prometheus_scrapes_services_of_compose() -> None:
    scrapes = yaml.safe_load((DOCKER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    targets = [target for job in scrapes for group in job["static_configs"] for target in group["targets"]]
    assert "worker:8080" in targets
    for target in targets:
        host, _, port = target.partition(":")
        assert port in {published.rpartition(":")[2] for published in SERVICES[host]["ports"]}, target
    assert OWN["worker"]["environment"]["XIDMET_WEB__PORT"] == "8080"


def test_prometheus_configuration_is_valid() -> None:
    promtool = need_program("promtool")
    checked = subprocess.run(
        [promtool, "check", "config", str(DOCKER / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_clickhouse_throws_its_own_logs_away() -> None:
    root = ElementTree.parse(DOCKER / "clickhouse" / "system-logs.xml").getroot()
    assert root.tag == "clickhouse"
    tables = {table.tag: table for table in root}
    assert {"query_log", "part_log", "metric_log", "asynchronous_metric_log"} <= set(tables)
    for name, table in tables.items():
        assert name.endswith("_log")
        assert table.get("remove") == "1" or "INTERVAL" in str(table.findtext("ttl")), f"{name} grows for ever"


def with_defaults(value: str) -> str:
    """``${NAME:-default}`` replaced by its default, as compose does when NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
