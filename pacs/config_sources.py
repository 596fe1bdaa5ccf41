"""Where settings come from: flags, environment, secret files and ``pacs.toml``, brought to text.

Knows the names of the settings but not their types or meaning; ``pacs.config`` judges the texts.
Problems are collected rather than raised, so that an operator sees all of them at once.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENVIRONMENT_PREFIX = "PACS_"
CONFIG_VARIABLE = "PACS_CONFIG"
CONFIG_FILE_NAME = "pacs.toml"
#: Where an archive is if nobody says otherwise; the one default that is needed without the other settings.
DATA_DIR = "pacs-data"

#: Settings that ``pacs.toml`` may also give as an array.
_LISTS = frozenset({"remote_aes", "extended_negotiation"})


@dataclass(frozen=True, slots=True)
class Given:
    """The text of one setting and the flag, variable or file it came from."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Reads every source of the settings called ``names``; relative paths start at ``cwd``."""

    names: tuple[str, ...]
    cwd: Path
    #: One line for each thing found wrong so far; never the value of a setting.
    problems: list[str] = field(default_factory=list)

    def read(
        self, overrides: Mapping[str, object], config: Path | None, environ: Mapping[str, str]
    ) -> dict[str, Given]:
        """The winning text of each setting that any source gives."""
        return {
            **self._file(self._config_path(config, environ)),
            **self._environment(environ),
            **self._flags(overrides),
        }

    def _config_path(self, config: Path | None, environ: Mapping[str, str]) -> Path | None:
        """The file to read, which must exist if it was named; None if there is nothing to read."""
        if config is not None:
            return self.cwd / config
        if named := environ.get(CONFIG_VARIABLE):
            return self.cwd / named
        found = self.cwd / CONFIG_FILE_NAME
        return found if found.exists() else None

    def _file(self, path: Path | None) -> dict[str, Given]:
        if path is None:
            return {}
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {error.strerror}")
            return {}
        except UnicodeDecodeError:
            self.problems.append(f"{path} is not UTF-8 text")
            return {}
        except tomllib.TOMLDecodeError as error:
            self.problems.append(f"{path} is not valid TOML: {error}")
            return {}
        given = {}
        for name, value in content.items():
            if name not in self.names:
                self._unknown(name, self.names, f"in {path}")
            elif isinstance(value, dict) or (isinstance(value, list) and name not in _LISTS):
                self.problems.append(f"{name}: expected one value, got several (from {path})")
            else:
                given[name] = Given(text(value), str(path))
        return given

    def _environment(self, environ: Mapping[str, str]) -> dict[str, Given]:
        # An empty variable counts as not set: Compose hands ${NAME:-} on as an empty one.
        variables = {
            key: value
            for key, value in environ.items()
            if key.startswith(ENVIRONMENT_PREFIX) and key != CONFIG_VARIABLE and value
        }
        known = [CONFIG_VARIABLE]
        given = {}
        for name in self.names:
            variable = environment_variable(name)
            known += [variable, f"{variable}_FILE"]
            direct, path = variables.pop(variable, None), variables.pop(f"{variable}_FILE", None)
            if direct is not None and path is not None:
                self.problems.append(f"{name}: {variable} and {variable}_FILE are both set")
            elif direct is not None:
                given[name] = Given(direct, variable)
            elif path is not None:
                given |= self._secret(name, f"{variable}_FILE", self.cwd / path)
        for variable in sorted(variables):
            self._unknown(variable, known, "in the environment")
        return given

    def _secret(self, name: str, variable: str, path: Path) -> dict[str, Given]:
        try:
            content = path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            self.problems.append(f"{name}: {variable}: {path} cannot be read: {error.strerror}")
            return {}
        except UnicodeDecodeError:
            self.problems.append(f"{name}: {variable}: {path} is not UTF-8 text")
            return {}
        if not content:
            self.problems.append(f"{name}: {variable}: {path} is empty")
            return {}
        return {name: Given(content, f"{variable} ({path})")}

    def _flags(self, overrides: Mapping[str, object]) -> dict[str, Given]:
        given = {}
        for name, value in overrides.items():
            if name not in self.names:
                self._unknown(name, self.names, "among the flags")
            elif value is not None:
                given[name] = Given(text(value), flag(name))
        return given

    def _unknown(self, name: str, known: Iterable[str], where: str) -> None:
        nearest = difflib.get_close_matches(name.upper(), [k.upper() for k in known], n=1, cutoff=0)
        hint = next(one for one in known if one.upper() == nearest[0])
        self.problems.append(f"{name!r} {where} is not a setting; the nearest is {hint}")


def environment_variable(name: str) -> str:
    """The variable of a setting; with ``_FILE`` appended it names a file that holds the value."""
    return ENVIRONMENT_PREFIX + name.upper()


def flag(name: str) -> str:
    """The command-line option of a setting."""
    return "--" + name.replace("_", "-")


def text(value: object) -> str:
    """A value in the form that every source takes; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
