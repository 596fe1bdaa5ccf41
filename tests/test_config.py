"""Settings: the order of the sources, what is accepted, and what an operator is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from pacs.config import MASK, RemoteAEAddress, Settings, is_secret, mask_url, names
from pacs.config_sources import environment_variable, flag
from pacs.errors import InvalidSetting
from pacs.index.engine import create

POSTGRES = "postgresql+psycopg://pacs@db:5432/pacs"

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_in_empty_directory(
        overrides: Mapping[str, object] | None = None,
        *,
        config: Path | None = None,
        toml: str | None = None,
        **environ: str,
    ) -> Settings:
        if toml is not None:
            (tmp_path / "pacs.toml").write_text(toml, encoding="utf-8")
        return Settings.load(overrides, config=config, environ=environ, cwd=tmp_path)

    return load_in_empty_directory


def problems(load: Load, *args: object, **kwargs: object) -> list[str]:
    with pytest.raises(InvalidSetting) as caught:
        load(*args, **kwargs)
    return caught.value.message.splitlines()


def test_load_without_any_source_gives_the_defaults(load: Load, tmp_path: Path) -> None:
    settings = load()

    assert settings.port == 11112
    assert settings.data_dir == tmp_path / "pacs-data"
    assert settings.database_url == f"sqlite:///{tmp_path}/pacs-data/index.sqlite"
    assert settings.storage_url == f"{tmp_path}/pacs-data/storage"
    assert set(settings.sources().values()) == {"default"}


def test_load_takes_each_setting_from_its_first_source(load: Load, tmp_path: Path) -> None:
    toml = 'port = 1\nae_title = "FILE"\nfind_limit = 7\nhost = "::"'

    settings = load(
        {"port": 3, "ae_title": None}, toml=toml, PACS_PORT="2", PACS_AE_TITLE="ENVIRONMENT"
    )

    assert (settings.port, settings.ae_title, settings.find_limit) == (3, "ENVIRONMENT", 7)
    sources = settings.sources()
    assert sources["port"] == "--port"
    assert sources["ae_title"] == "PACS_AE_TITLE"
    assert sources["find_limit"] == str(tmp_path / "pacs.toml")
    assert sources["workers"] == "default"


def test_load_empty_variable_counts_as_not_set(load: Load) -> None:
    settings = load(toml="port = 1", PACS_PORT="", PACS_UNKNOWN="")

    assert settings.port == 1


def test_load_ignores_variables_of_others(load: Load) -> None:
    assert load(HOME="/", PACSTEST_PORT="x", pacs_port="x").port == 11112


@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "variable"])
def test_load_named_file_replaces_the_one_in_the_directory(
    load: Load, tmp_path: Path, by_flag: bool
) -> None:
    (tmp_path / "other.toml").write_text("find_limit = 5", encoding="utf-8")
    toml = "port = 1"

    if by_flag:
        settings = load(toml=toml, config=Path("other.toml"), PACS_CONFIG="missing.toml")
    else:
        settings = load(toml=toml, PACS_CONFIG="other.toml")

    assert (settings.port, settings.find_limit) == (11112, 5)


def test_load_named_file_that_is_missing_is_refused(load: Load, tmp_path: Path) -> None:
    assert problems(load, PACS_CONFIG="missing.toml") == [
        f"{tmp_path / 'missing.toml'} cannot be read: No such file or directory"
    ]


def test_load_broken_toml_is_one_line(load: Load, tmp_path: Path) -> None:
    (line,) = problems(load, toml="port = \n")

    assert line.startswith(f"{tmp_path / 'pacs.toml'} is not valid TOML: ")


def test_load_toml_that_is_not_utf8_is_one_line(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pacs.toml").write_bytes(b'ae_title = "\xff"')

    assert problems(load) == [f"{tmp_path / 'pacs.toml'} is not UTF-8 text"]


@pytest.mark.parametrize("value", ["{ a = 1 }", "[1, 2]"], ids=["table", "array"])
def test_load_toml_container_for_a_single_value_is_refused(load: Load, value: str) -> None:
    (line,) = problems(load, toml=f"port = {value}")

    assert line.startswith("port: expected one value, got several (from ")


@pytest.mark.parametrize(
    ("name", "toml", "expected"),
    [
        ("port", "0", 0),
        ("port", "'104'", 104),
        ("allow_any", "true", True),
        ("allow_any", "1", True),
    ],
)
def test_load_toml_value_needs_no_particular_type(
    load: Load, name: str, toml: str, expected: object
) -> None:
    settings = load(toml=f"{name} = {toml}")

    assert getattr(settings, name) == expected


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("PACS_PROT", "PACS_PORT"),
        ("PACS_DATABASE_PASWORD_FILE", "PACS_DATABASE_PASSWORD_FILE"),
        ("PACS_CONFIGS", "PACS_CONFIG"),
    ],
)
def test_load_unknown_variable_names_the_nearest(load: Load, variable: str, nearest: str) -> None:
    assert problems(load, **{variable: "secret"}) == [
        f"{variable!r} in the environment is not a setting; the nearest is {nearest}"
    ]


def test_load_unknown_key_names_the_nearest(load: Load, tmp_path: Path) -> None:
    assert problems(load, toml='ae-title = "A"') == [
        f"'ae-title' in {tmp_path / 'pacs.toml'} is not a setting; the nearest is ae_title"
    ]


def test_load_unknown_flag_names_the_nearest(load: Load) -> None:
    assert problems(load, {"find_limits": 1}) == [
        "'find_limits' among the flags is not a setting; the nearest is find_limit"
    ]


def test_load_several_problems_are_reported_together(load: Load) -> None:
    lines = problems(load, {"port": -1}, toml="colour = 1", PACS_FIND_LIMT="1", PACS_WORKERS="x")

    assert len(lines) == 4


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", "x", "a whole number from 0 to 65535"),
        ("port", "65536", "a whole number from 0 to 65535"),
        ("port", "1.5", "a whole number from 0 to 65535"),
        ("port", "9" * 5000, "a whole number from 0 to 65535"),
        ("port", "tcp://10.0.0.1:11112", "a whole number from 0 to 65535"),
        ("workers", "0", "a whole number from 1 to 1024"),
        ("workers", "x", "a whole number from 1 to 1024"),
        ("acse_timeout_seconds", "nan", "a number from 0.1 to 86400"),
        ("acse_timeout_seconds", "inf", "a number from 0.1 to 86400"),
        ("drain_timeout_seconds", "-1", "a number from 0 to 86400"),
        ("allow_any", "perhaps", "true or false"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("duplicate_policy", "merge", "one of replace, keep, refuse"),
        ("ae_title", "A\\B", "an AE title: 1 to 16 ASCII characters, no backslash (PS3.5 6.2)"),
        ("ae_title", "   ", "an AE title: 1 to 16 ASCII characters, no backslash (PS3.5 6.2)"),
        ("ae_title", "A" * 17, "an AE title: 1 to 16 ASCII characters, no backslash (PS3.5 6.2)"),
        ("ae_title", "A\nB", "an AE title: 1 to 16 ASCII characters, no backslash (PS3.5 6.2)"),
        ("ae_title", "Ä", "an AE title: 1 to 16 ASCII characters, no backslash (PS3.5 6.2)"),
        ("host", "localhost:104", "an IP address or a host name, without a port"),
        ("host", "[::1]", "an IP address or a host name, without a port"),
        ("data_dir", "a?b", "a path without control characters and question marks"),
        ("data_dir", "a\nb", "a path without control characters and question marks"),
        (
            "database_url",
            "sqlite:///",
            "a URL that starts with sqlite:/// or postgresql+psycopg://",
        ),
        (
            "database_url",
            "mysql://u@h/d",
            "a URL that starts with sqlite:/// or postgresql+psycopg://",
        ),
    ],
)
def test_load_bad_value_is_one_line_with_source_and_expectation(
    load: Load, name: str, value: str, expected: str
) -> None:
    variable = environment_variable(name)

    lines = problems(load, **{variable: value})

    assert lines == [f"{name}: expected {expected}, got {value[:200]!r} (from {variable})"]


def test_load_toml_boolean_is_not_a_number(load: Load) -> None:
    (line,) = problems(load, toml="port = true")

    assert line.startswith("port: expected a whole number from 0 to 65535, got 'true' (from ")


def test_load_choices_ignore_case(load: Load) -> None:
    settings = load(PACS_LOG_LEVEL="WARNING", PACS_DUPLICATE_POLICY="Keep")

    assert (settings.log_level, settings.duplicate_policy) == ("warning", "keep")


def test_load_relative_paths_start_at_the_directory_and_tilde_at_home(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")

    assert load(PACS_DATA_DIR="x").data_dir == tmp_path / "x"
    assert load(PACS_STORAGE_URL="y").storage_url == str(tmp_path / "y")
    assert load(PACS_STORAGE_URL="file:///y").storage_url == "file:///y"
    assert load(PACS_DATA_DIR="~/x").data_dir == Path("/home/someone/x")


def test_load_tilde_without_a_home_is_one_line(load: Load) -> None:
    (line,) = problems(load, PACS_DATA_DIR="~no-such-user/x")

    assert line.startswith("data_dir: expected ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "fe80::1", "pacs.example.org", "db_1"])
def test_load_host_may_be_an_address_or_a_name(load: Load, host: str) -> None:
    assert load(PACS_HOST=host).host == host


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=h:104", (("A", "h", 104, False),)),
        (
            " A = h:104 , B=[::1]:11112,",
            (("A", "h", 104, False), ("B", "::1", 11112, False)),
        ),
        ("ODD=TITLE=10.0.0.1:1", (("ODD=TITLE", "10.0.0.1", 1, False),)),
        ("A=h:104, B=[::1]:2762/tls", (("A", "h", 104, False), ("B", "::1", 2762, True))),
    ],
    ids=["one", "spaces and IPv6", "equals sign in the title", "TLS"],
)
def test_remote_aes_are_parsed(
    load: Load, text: str, expected: tuple[tuple[str, str, int, bool], ...]
) -> None:
    assert load(PACS_REMOTE_AES=text).remote_aes == expected


def test_remote_aes_in_toml_may_be_an_array(load: Load) -> None:
    settings = load(toml='remote_aes = ["A=h:1", "B=[::1]:2", "C=h:3/tls"]')

    assert settings.remote_aes == (
        RemoteAEAddress("A", "h", 1),
        RemoteAEAddress("B", "::1", 2),
        RemoteAEAddress("C", "h", 3, tls=True),
    )
    assert settings.describe()["remote_aes"] == "A=h:1,B=[::1]:2,C=h:3/tls"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"PACS_TLS": "required"}, "tls: expected off without tls_certificate, got 'required'"),
        ({"PACS_TLS": "on"}, "tls: expected one of off, optional, required, got 'on'"),
        ({"PACS_TLS_KEY": "/key.pem"}, "tls_key: expected none without tls_certificate"),
        (
            {"PACS_TLS_KEY_PASSWORD": "correct-horse"},
            "tls_key_password: expected none without tls_certificate, got '***'",
        ),
        (
            {"PACS_TLS_REQUIRE_CLIENT_CERTIFICATE": "true", "PACS_TLS_CA": "/ca.pem"},
            "tls_require_client_certificate: expected false unless tls is on and tls_ca names",
        ),
        (
            {
                "PACS_TLS_REQUIRE_CLIENT_CERTIFICATE": "true",
                "PACS_TLS_CERTIFICATE": "/pacs.pem",
                "PACS_TLS": "Required",
            },
            "tls_require_client_certificate: expected false unless tls is on and tls_ca names",
        ),
    ],
    ids=["no certificate", "unknown", "key alone", "password alone", "tls is off", "no CA"],
)
def test_load_tls_settings_that_do_not_go_together(
    load: Load, variables: dict[str, str], complaint: str
) -> None:
    (line,) = problems(load, **variables)

    assert line.startswith(complaint)
    assert "correct-horse" not in line


def test_load_tls_settings_that_go_together(load: Load, tmp_path: Path) -> None:
    settings = load(
        PACS_TLS="required",
        PACS_TLS_CERTIFICATE="pacs.pem",
        PACS_TLS_KEY="pacs.key",
        PACS_TLS_KEY_PASSWORD="correct-horse",
        PACS_TLS_CA="ca.pem",
        PACS_TLS_REQUIRE_CLIENT_CERTIFICATE="true",
    )

    assert settings.tls_certificate == tmp_path / "pacs.pem"
    assert settings.tls_key_password == "correct-horse"
    assert "correct-horse" not in repr(settings)


@pytest.mark.parametrize(
    "entry",
    [
        "A",
        "A=h",
        "=h:1",
        "A=:1",
        "A=h:0",
        "A=h:65536",
        "A=h:x",
        "A=::1:104",
        "A\\=h:1",
        "A" * 17 + "=h:1",
    ],
)
def test_remote_aes_bad_entry_is_named(load: Load, entry: str) -> None:
    (line,) = problems(load, PACS_REMOTE_AES=f"GOOD=h:1,{entry}")

    assert f"{entry!r} is not one" in line


def test_remote_aes_repeated_title_is_refused(load: Load) -> None:
    (line,) = problems(load, PACS_REMOTE_AES="A=h:1,A=h:2")

    assert "expected each AE title once" in line


def test_database_password_is_quoted_into_the_url(load: Load) -> None:
    settings = load(PACS_DATABASE_URL=POSTGRES, PACS_DATABASE_PASSWORD="p@ss/w:rd%")

    assert settings.database_url == "postgresql+psycopg://pacs:p%40ss%2Fw%3Ard%25@db:5432/pacs"


@pytest.mark.parametrize(
    "url",
    [
        None,
        "sqlite:////x",
        "postgresql://db/pacs",
        "postgresql://u:old@db/pacs",
        "postgresql://@db/x",
    ],
    ids=["default", "sqlite", "no user", "a password already", "empty user"],
)
def test_database_password_that_fits_no_url_is_refused(load: Load, url: str | None) -> None:
    environ = {} if url is None else {"PACS_DATABASE_URL": url}

    (line,) = problems(load, PACS_DATABASE_PASSWORD="hunter2", **environ)

    assert "database_password is set" in line
    assert "hunter2" not in line
    assert "old" not in line


def test_secret_file_gives_the_value_without_its_line_break(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2 \r\n", encoding="utf-8")

    settings = load(PACS_DATABASE_URL=POSTGRES, PACS_DATABASE_PASSWORD_FILE="secret")

    assert settings.database_password == "hunter2 "
    assert settings.sources()["database_password"] == (
        f"PACS_DATABASE_PASSWORD_FILE ({tmp_path / 'secret'})"
    )


def test_secret_file_works_for_every_setting(load: Load, tmp_path: Path) -> None:
    (tmp_path / "port").write_text("104\n", encoding="utf-8")

    assert load(toml="port = 1", PACS_PORT_FILE="port").port == 104


def test_secret_file_beside_its_variable_is_refused(load: Load) -> None:
    assert problems(load, PACS_PORT="1", PACS_PORT_FILE="x") == [
        "port: PACS_PORT and PACS_PORT_FILE are both set"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "is not UTF-8 text"),
    ],
    ids=["missing", "empty", "line break", "binary"],
)
def test_secret_file_that_holds_no_value_is_refused(
    load: Load, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)

    lines = problems(load, PACS_DATABASE_PASSWORD_FILE=str(path))

    assert lines == [f"database_password: PACS_DATABASE_PASSWORD_FILE: {path} {reason}"]


def test_secrets_appear_nowhere(load: Load) -> None:
    settings = load(PACS_DATABASE_URL=POSTGRES, PACS_DATABASE_PASSWORD="hunter2")

    assert settings.describe()["database_password"] == MASK
    assert settings.describe()["database_url"] == f"postgresql+psycopg://pacs:{MASK}@db:5432/pacs"
    for shown in (repr(settings), str(settings), str(settings.describe())):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("password", "written"), [("p@ss", "p@ss"), ("a:b@c@d/e", "a:b@c@d/e"), ("p@ss", "p%40ss")]
)
def test_password_with_an_at_sign_is_the_whole_password_and_shown_nowhere(
    load: Load, password: str, written: str
) -> None:
    """SQLAlchemy ends it at the first @, and would show the rest as part of the host."""
    settings = load(PACS_DATABASE_URL=f"postgresql://u:{written}@db:5432/pacs?application_name=x")

    url = sa.make_url(settings.database_url)
    engine = create(settings.database_url)
    shown = engine.description
    engine.close()

    assert (url.username, url.password, url.host, url.port) == ("u", password, "db", 5432)
    assert shown == "postgresql+psycopg://u:***@db:5432/pacs?application_name=x"
    assert settings.describe()["database_url"] == (
        f"postgresql://u:{MASK}@db:5432/pacs?application_name=x"
    )


@pytest.mark.parametrize(
    "url", ["hunter2", "host=db password=hunter2", "x://u:hunter2@h/d", "x://h/d?password=hunter2"]
)
def test_secret_in_a_bad_database_url_is_not_echoed(load: Load, url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load(PACS_DATABASE_URL=url)

    assert "hunter2" not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u:p@h/d", f"postgresql://u:{MASK}@h/d"),
        ("postgresql://u:p@q:r/s@h/d", f"postgresql://u:{MASK}@h/d"),
        ("postgresql://:p@h/d", f"postgresql://:{MASK}@h/d"),
        ("postgresql://h/d?user=u&PassWord=p&x=1", f"postgresql://h/d?user=u&PassWord={MASK}&x=1"),
        ("postgresql://u:p@q@h/d", f"postgresql://u:{MASK}@h/d"),
        ("postgresql://h:1/d?password=p@q", f"postgresql://h:1/d?password={MASK}"),
        ("postgresql://h/d?sslpassword=p", f"postgresql://h/d?sslpassword={MASK}"),
        ("sqlite:////a/b", "sqlite:////a/b"),
    ],
)
def test_mask_url_hides_passwords_only(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_describe_is_what_load_accepts(load: Load) -> None:
    settings = load(
        {"allow_any": True, "connect_timeout_seconds": 0.5}, PACS_REMOTE_AES="A=h:1,B=[::1]:2"
    )

    again = load({name: text or None for name, text in settings.describe().items()})

    assert again.describe() == settings.describe()


def test_settings_cannot_be_changed(load: Load) -> None:
    settings = load()

    with pytest.raises(ValidationError):
        settings.port = 1


def test_every_name_has_a_variable_a_flag_and_a_description() -> None:
    assert environment_variable("ae_title") == "PACS_AE_TITLE"
    assert flag("ae_title") == "--ae-title"
    assert [name for name in names() if is_secret(name)] == [
        "database_password",
        "tls_key_password",
    ]
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("text", ["local", "+0100", "-0330", "Europe/Berlin", "UTC"])
def test_timezone_is_an_offset_or_a_name(load: Load, text: str) -> None:
    assert load(PACS_TIMEZONE=text).timezone == text


@pytest.mark.parametrize("text", ["+1500", "Mars/Olympus", "../../etc/passwd", "LOCALE"])
def test_timezone_that_does_not_exist_is_refused(load: Load, text: str) -> None:
    [line] = problems(load, PACS_TIMEZONE=text)

    assert line.startswith("timezone: expected local, an offset such as +0100, or an IANA name")
