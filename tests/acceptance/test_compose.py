"""The container image and the Compose file agree with the settings, and their command serves.

No container engine is needed: the last test runs the image's entry point and health check as
processes of this machine, in the environment that Compose would give them, with the paths moved.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml

from pacs.cli import app
from pacs.config import Settings, names
from pacs.config_sources import CONFIG_VARIABLE, environment_variable

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60

KNOWN_VARIABLES = {CONFIG_VARIABLE} | {
    environment_variable(name) + suffix for name in names() for suffix in ("", "_FILE")
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, comments and line breaks removed."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    code = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [(found[1], found[2].strip()) for found in re.finditer(r"(?m)^([A-Z]+) (.*)$", code)]


def last(dockerfile: list[tuple[str, str]], instruction: str) -> str:
    return [argument for name, argument in dockerfile if name == instruction][-1]


def image_environment(dockerfile: list[tuple[str, str]]) -> dict[str, str]:
    pairs = shlex.split(last(dockerfile, "ENV"))
    return dict(pair.split("=", 1) for pair in pairs)


def interpolated(text: str, shell: Mapping[str, str]) -> str:
    """What Compose makes of ``${NAME:-default}`` and ``$$``."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else shell.get(found["name"]) or found["default"]

    return re.sub(r"\$\$|\$\{(?P<name>\w+):-(?P<default>[^}]*)\}", value, text)


def container_environment(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]], shell: Mapping[str, str]
) -> dict[str, str]:
    """The PACS_ variables of the running container."""
    given = image_environment(dockerfile) | compose["services"]["pacs"]["environment"]
    return {
        key: interpolated(value, shell) for key, value in given.items() if key.startswith("PACS_")
    }


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_every_variable_of_image_and_compose_is_a_setting(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    mentioned = set(re.findall(r"PACS_[A-Z_]+", json.dumps(compose) + json.dumps(dockerfile)))

    assert "PACS_DATABASE_URL" in mentioned
    assert mentioned <= KNOWN_VARIABLES


def test_container_environment_loads(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]], tmp_path: Path
) -> None:
    environ = container_environment(compose, dockerfile, {"PACS_REMOTE_AES": "VIEWER=10.0.0.7:104"})
    secret = tmp_path / "password"
    secret.write_text("hunter2\n", "utf-8")

    settings = Settings.load(environ=environ | {"PACS_DATABASE_PASSWORD_FILE": str(secret)})

    assert settings.database_url == "postgresql+psycopg://pacs:hunter2@database:5432/pacs"
    assert settings.data_dir == Path("/data")
    assert [str(remote) for remote in settings.remote_aes] == ["VIEWER=10.0.0.7:104"]


def test_ports_are_those_of_the_settings(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    port = Settings.model_fields["port"].default

    assert last(dockerfile, "EXPOSE") == str(port)
    assert compose["services"]["pacs"]["ports"] == [f"{port}:{port}"]
    assert "PACS_PORT" not in container_environment(compose, dockerfile, {})


def test_volumes_hold_the_data_directories(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    data_dir = container_environment(compose, dockerfile, {})["PACS_DATA_DIR"]

    assert last(dockerfile, "VOLUME") == data_dir
    assert compose["services"]["pacs"]["volumes"] == [f"archive:{data_dir}"]
    assert compose["services"]["database"]["volumes"] == ["database:/var/lib/postgresql/data"]
    assert set(compose["volumes"]) == {"archive", "database"}


def test_database_service_is_the_one_the_settings_name(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    url = urlsplit(container_environment(compose, dockerfile, {})["PACS_DATABASE_URL"])
    database = compose["services"][url.hostname]

    assert re.fullmatch(r"postgres:\d+", database["image"])
    assert database["environment"]["POSTGRES_USER"] == url.username
    assert database["environment"]["POSTGRES_DB"] == url.path.removeprefix("/")
    assert url.password is None


def test_password_is_a_secret_of_both_services(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    pacs, database = compose["services"]["pacs"], compose["services"]["database"]
    secrets = {f"/run/secrets/{name}" for name in compose["secrets"]}
    environ = container_environment(compose, dockerfile, {})

    assert {environ["PACS_DATABASE_PASSWORD_FILE"]} == secrets
    assert {database["environment"]["POSTGRES_PASSWORD_FILE"]} == secrets
    assert pacs["secrets"] == database["secrets"] == list(compose["secrets"])


def test_services_restart_and_start_in_order(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0].startswith("CMD")
    assert compose["services"]["pacs"]["depends_on"] == {
        "database": {"condition": "service_healthy"}
    }


def test_stop_waits_longer_than_the_drain(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    drain = float(container_environment(compose, dockerfile, {})["PACS_DRAIN_TIMEOUT_SECONDS"])

    assert seconds(compose["services"]["pacs"]["stop_grace_period"]) >= drain + 15


def test_image_runs_as_an_unprivileged_user(dockerfile: list[tuple[str, str]]) -> None:
    user, group = last(dockerfile, "USER").split(":")

    assert int(user) > 0
    assert int(group) > 0


def test_image_and_compose_agree_on_command_and_health_check(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    service = compose["services"]["pacs"]
    check = service["healthcheck"]["test"]

    assert json.loads(last(dockerfile, "ENTRYPOINT")) == ["pacs"]
    assert json.loads(last(dockerfile, "CMD")) == service["command"] == ["serve"]
    in_image = json.loads(last(dockerfile, "HEALTHCHECK").split(" CMD ")[1])
    assert ["CMD", *in_image] == check == ["CMD", "pacs", "health"]


def test_build_context_holds_what_the_image_copies_and_no_secrets(
    dockerfile: list[tuple[str, str]],
) -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = {
        source.removeprefix("./")
        for instruction, argument in dockerfile
        if instruction == "COPY" and not argument.startswith("--from")
        for source in argument.split()[:-1]
    }

    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    for source in copied:
        assert (ROOT / source).exists()


@contextmanager
def serving(
    command: list[str], environ: Mapping[str, str], cwd: Path
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the server until the block ends; gives its process and port."""
    with subprocess.Popen(
        command,
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = threading.Timer(DEADLINE_SECONDS, process.kill)
        deadline.start()
        printed = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                printed.append(line)
                if found := re.search(r"listening on \S*:(\d+)", line):
                    yield process, int(found[1])
                    break
            else:
                pytest.fail("the server did not start:\n" + "".join(printed))
        finally:
            deadline.cancel()
            process.kill()
            process.communicate()


def without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*)(:[^@/]*)?@", r"\1@", url)


@pytest.mark.postgres
@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_container_command_serves_and_stops(
    compose: dict[str, Any],
    dockerfile: list[tuple[str, str]],
    empty_database_url: str,
    tmp_path: Path,
) -> None:
    service = compose["services"]["pacs"]
    command = json.loads(last(dockerfile, "ENTRYPOINT")) + service["command"]
    password = unquote(urlsplit(empty_database_url).password or "") or "not asked for"
    (tmp_path / "password").write_text(f"{password}\n", "utf-8")
    launcher = tmp_path / "bin" / "pacs"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pacs "$@"\n', "utf-8")
    launcher.chmod(0o755)
    environ = container_environment(compose, dockerfile, {"PACS_AE_TITLE": "COMPOSED"}) | {
        "PATH": f"{launcher.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": image_environment(dockerfile)["PYTHONUNBUFFERED"],
        "PACS_DATA_DIR": str(tmp_path / "data"),
        "PACS_DATABASE_URL": without_password(empty_database_url),
        "PACS_DATABASE_PASSWORD_FILE": str(tmp_path / "password"),
        "PACS_HOST": "127.0.0.1",
        "PACS_PORT": "0",
    }
    _, *check = service["healthcheck"]["test"]

    # Popen looks a command up in the PATH of this process, not in that of `env`.
    with serving([str(launcher), *command[1:]], environ, tmp_path) as (process, _):
        health = subprocess.run(
            [str(launcher), *check[1:]],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            text=True,
            check=False,
        )
        process.send_signal(signal.SIGTERM)
        status = process.wait(DEADLINE_SECONDS)

    assert health.returncode == 0, health.stdout + health.stderr
    assert status == 0
    assert (tmp_path / "data").is_dir()
    assert not (tmp_path / "data" / "index.sqlite").exists()


# What the README says to do with it


def test_readme_registers_the_host_that_calls_the_containers(compose: dict[str, Any]) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"<!-- compose-command -->\n```sh\n(.*?)\n```", text, re.DOTALL)
    assert found is not None
    inspected, registered, stored = found[1].splitlines()

    # Compose gives each project a network of its own, unless the file names one.
    assert "networks" not in compose
    assert inspected.endswith(f" {compose['name']}_default)")
    words = shlex.split(registered.replace('"$gateway"', "172.18.0.1"))
    assert words[:4] == ["docker", "compose", "exec", "pacs"]
    command = app.get_command(click.Context(app), words[5])
    assert isinstance(command, click.Group)
    add = command.get_command(click.Context(command), words[6])
    assert add is not None
    named = add.make_context("add", words[7:]).params
    assert (named["title"], named["host"], named["port"]) == ("WORKSTATION", "172.18.0.1", 11113)
    assert "-aet WORKSTATION -aec PACS localhost 11112" in stored
    assert compose["services"]["pacs"]["ports"] == ["11112:11112"]
