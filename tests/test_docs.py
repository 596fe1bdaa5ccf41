"""What the documents say is true: settings, commands, links."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from click import Option

from pacs.cli.serving import serve_command
from pacs.config import Settings, is_secret, names
from pacs.config_sources import CONFIG_VARIABLE, environment_variable, flag

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def marked_command(marker: str) -> str:
    """The one line in the README's code block under ``<!-- marker -->``."""
    found = re.search(rf"^<!-- {marker} -->\n```\w*\n(.+)\n```$", read("README.md"), re.MULTILINE)
    assert found, f"README.md has no one-line code block under <!-- {marker} -->"
    return found[1]


@dataclass(frozen=True)
class Section:
    """The paragraph and the facts that docs/configuration.md gives for one setting."""

    paragraph: str
    facts: dict[str, str]


def sections() -> dict[str, Section]:
    found = {}
    for part in re.split(r"(?m)^### ", read("docs/configuration.md"))[1:]:
        name, _, rest = part.partition("\n")
        rest = re.split(r"(?m)^## ", rest)[0]
        prose = re.split(r"(?m)^- ", rest)[0]
        facts = dict(re.findall(r"(?m)^- (\w+): `?(.*?)`?$", rest))
        found[name] = Section(" ".join(prose.split()), facts)
    return found


SECTIONS = sections()


def test_configuration_documents_every_setting_once_and_no_other() -> None:
    headings = re.findall(r"(?m)^### (.*)$", read("docs/configuration.md"))

    assert sorted(headings) == sorted(names())


@pytest.mark.parametrize("name", names())
def test_configuration_paragraph_opens_with_the_help_text_and_says_more(name: str) -> None:
    description = Settings.model_fields[name].description
    paragraph = SECTIONS[name].paragraph

    assert description is not None
    assert paragraph.startswith(description)
    assert len(paragraph) > len(description)


@pytest.mark.parametrize(
    "name", [name for name in names() if re.search("_(seconds|bytes|days)$", name)]
)
def test_configuration_names_the_unit(name: str) -> None:
    assert name.rpartition("_")[2] in SECTIONS[name].paragraph.lower()


@pytest.mark.parametrize("name", names())
def test_configuration_default_is_true(name: str, tmp_path: Path) -> None:
    documented = SECTIONS[name].facts["Default"]
    defaults = Settings.load(environ={}, cwd=tmp_path)
    text = documented.replace("<data_dir>", str(defaults.data_dir))

    loaded = Settings.load({} if text == "none" else {name: text}, environ={}, cwd=tmp_path)

    assert getattr(loaded, name) == getattr(defaults, name)


@pytest.mark.parametrize("name", names())
def test_configuration_names_variable_and_flag(name: str) -> None:
    facts = SECTIONS[name].facts

    assert facts["Environment"] == environment_variable(name)
    assert facts["Flag"] == ("none" if is_secret(name) else flag(name))


def test_configuration_flags_are_options_of_serve() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pacs", "serve", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout

    options = set(re.findall(r"--[a-z][a-z-]*", shown))

    assert {SECTIONS[name].facts["Flag"] for name in names()} - {"none"} <= options


@pytest.mark.parametrize("name", names())
def test_configuration_default_is_in_the_help_of_serve(name: str) -> None:
    options = {option.name: option for option in serve_command.params if isinstance(option, Option)}
    default = SECTIONS[name].facts["Default"].removeprefix("./")

    if name not in options:
        assert is_secret(name)
    elif default == "none" or "<" in default:
        assert "[" not in str(options[name].help)
    else:
        assert str(options[name].help).endswith(f"  [{default}]")


@pytest.mark.parametrize("name", names())
def test_configuration_example_is_accepted(name: str, tmp_path: Path) -> None:
    variable, _, value = SECTIONS[name].facts["Example"].partition("=")
    environ = {variable: value}
    if name == "database_password":
        environ["PACS_DATABASE_URL"] = "postgresql+psycopg://pacs@db/pacs"
    if name.startswith("tls"):
        environ = {"PACS_TLS_CERTIFICATE": "pacs.pem", "PACS_TLS": "optional"} | environ
    if name == "tls_require_client_certificate":
        environ["PACS_TLS_CA"] = "ca.pem"

    settings = Settings.load(environ=environ, cwd=tmp_path)

    assert settings.sources()[name] == environment_variable(name)


def test_configuration_file_example_is_accepted(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", read("docs/configuration.md"), re.DOTALL)
    (tmp_path / "pacs.toml").write_text(example, "utf-8")

    settings = Settings.load(environ={}, cwd=tmp_path)

    assert set(tomllib.loads(example)) == {
        name for name, source in settings.sources().items() if source != "default"
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_link_to_files_that_exist(document: Path) -> None:
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", document.read_text("utf-8"))

    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_mention_only_variables_that_exist(document: Path) -> None:
    known = {environment_variable(name) + end for name in names() for end in ("", "_FILE")}
    # Placeholders, and the two examples of what is *not* a setting.
    known |= {"PACS_CONFIG", "PACS_NAME", "PACS_NAME_FILE", "PACS_PROT", "PACS_SERVICE_HOST"}

    mentioned = set(re.findall(r"\bPACS_[A-Z_]*[A-Z]\b", document.read_text("utf-8")))

    assert mentioned - known == set()


@pytest.mark.parametrize(
    ("marker", "installs", "ends"),
    [
        ("start-command", r"pip install -q \.", ".venv/bin/pacs serve"),
        ("test-command", r"pip install -q -e '\.\[test\]'", ".venv/bin/pytest"),
    ],
)
def test_readme_commands_start_from_a_fresh_clone(marker: str, installs: str, ends: str) -> None:
    command = marked_command(marker)

    steps = command.split(" && ")

    assert steps[0] == "python3 -m venv .venv"
    assert re.fullmatch(rf"\.venv/bin/{installs}", steps[1])
    assert steps[2:] == [ends]


@pytest.mark.parametrize("marker", ["start-command", "test-command"])
def test_ci_runs_the_commands_of_the_readme(marker: str) -> None:
    extracted = subprocess.run(
        [ROOT / ".ci" / "readme-command", marker],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert extracted.stdout.strip() == marked_command(marker)
    assert f"$(.ci/readme-command {marker})" in read(".ci/run")


def test_ci_fails_when_the_readme_lacks_a_command() -> None:
    missing = subprocess.run(
        [ROOT / ".ci" / "readme-command", "no-such-command"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert missing.returncode != 0
    assert "no-such-command" in missing.stderr


def test_contributing_gate_is_what_ci_runs() -> None:
    block = re.search(r"<!-- gate -->\n```\w*\n(.*?)```", read("CONTRIBUTING.md"), re.DOTALL)
    assert block, "CONTRIBUTING.md has no code block under <!-- gate -->"
    gate = [line.removeprefix(".venv/bin/") for line in block[1].splitlines()]

    ci = [
        line.strip().replace('"$scratch/lint/bin/', "").replace('"', "")
        for line in read(".ci/run").splitlines()
    ]

    assert gate[-1] == "pytest"
    assert [line for line in gate[:-1] if line not in ci] == []


def test_changelog_has_an_unreleased_part_with_known_headings() -> None:
    changelog = read("CHANGELOG.md")

    assert re.findall(r"(?m)^## (.*)$", changelog)[0] == "[Unreleased]"
    assert set(re.findall(r"(?m)^### (.*)$", changelog)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


def test_systemd_unit_sets_settings_and_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    found = re.search(r"<!-- systemd -->\n```ini\n(.*?)```", text, re.DOTALL)
    assert found is not None
    unit = (
        found[1].replace("/opt/pacs/bin/pacs", "/bin/true").replace("User=pacs\nGroup=pacs\n", "")
    )
    (tmp_path / "pacs.service").write_text(unit, "utf-8")

    assigned = re.findall(r"\b(PACS_\w+)=", found[1])
    assert set(assigned) == {environment_variable("data_dir"), CONFIG_VARIABLE}
    assert "ExecStart=/opt/pacs/bin/pacs serve\n" in found[1]
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in found[1]
    if shutil.which("systemd-analyze"):
        verify = ["systemd-analyze", "verify", str(tmp_path / "pacs.service")]
        judged = subprocess.run(verify, capture_output=True, text=True, check=False)
        assert "pacs.service" not in judged.stderr, judged.stderr
