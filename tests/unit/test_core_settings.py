"""Settings: durations, unknown keys by name, the environment over the file, and what does not go together."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from jetway.core.errors import StartupError
from jetway.setting_types import Duration, format_duration, parse_duration
from jetway.settings import Settings, load_settings

_DURATION = TypeAdapter(Duration)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("JETWAY_")]:
        monkeypatch.delenv(name)


def load(tmp_path: Path, text: str = "") -> Settings:
    file = tmp_path / "jetway.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def refused(tmp_path: Path, text: str = "") -> str:
    with pytest.raises(StartupError) as caught:
        load(tmp_path, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("24h", 86_400), ("90d", 7_776_000), (" 30s ", 30)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(90, "90s"), (60, "1m"), (86_400, "1d"), (0.25, "250ms"), (3600, "1h"), (90_061, "90061s")],
)
def test_a_duration_is_shown_in_the_largest_unit_that_is_exact(value: float, shown: str) -> None:
    assert format_duration(timedelta(seconds=value)) == shown


@pytest.mark.parametrize(
    "value",
    ["", "30", "s", "-1s", "0s", "0d", "1w", "1 h", "1h30m", "1e3s", "PT30S", "36501d", "9" * 400 + "d"],
)
def test_any_other_duration_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        _DURATION.validate_python(value)


def test_without_a_file_the_daemon_is_embedded_and_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/jetway")
    settings = load_settings()
    assert (settings.nats.mode, settings.http.listen, settings.nats.listen) == (
        "embedded",
        "127.0.0.1:8080",
        "127.0.0.1:4222",
    )
    assert settings.public_url == "http://127.0.0.1:8080"
    assert settings.database_url == "sqlite:////var/lib/jetway/registry.db"
    assert settings.nats_public_urls == ("nats://127.0.0.1:4222",)
    assert settings.interval_seconds == 30
    assert settings.lifecycle.implicit_registration == "quarantine"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[http]\nlistn = 'x'", "http.listn"),
        ("[htp]\nlisten = 'x'", "htp"),
        ("stat_dir = '/x'", "stat_dir"),
        ("[lifecycle]\narchive_afer = '1d'", "lifecycle.archive_afer"),
    ],
)
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, text: str, name: str) -> None:
    said = refused(tmp_path, text)
    assert f"{name}: there is no such setting" in said
    assert "jetway.toml" in said


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("JETWAY_HTP__LISTEN", "JETWAY_HTP__LISTEN"),
        ("JETWAY_HTTP__LISTN", "http.listn"),
        ("JETWAY_LISTEN", "JETWAY_LISTEN"),
    ],
)
def test_an_unknown_variable_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.setenv(variable, "x")
    assert f"{name}: there is no such setting" in refused(tmp_path)


def test_variables_of_the_client_commands_are_none_of_the_daemons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETWAY_URL", "http://x")
    monkeypatch.setenv("JETWAY_TOKEN", "x")
    assert load(tmp_path).http.public_url == ""


def test_every_wrong_setting_is_told_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, "[http]\nlisten = 'x'\n[heartbeat]\ninterval = 'soon'\nlate_after = 0.5")
    assert all(name in said for name in ("http.listen", "heartbeat.interval", "heartbeat.late_after"))
    assert len(said.splitlines()) == 3


@pytest.mark.parametrize("text", ["[http", "a = ", "= 1", "a = 1\na = 2"])
def test_broken_toml_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    assert "jetway.toml is not TOML" in refused(tmp_path, text)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "jetway.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(StartupError, match="not TOML"):
        load_settings(tmp_path / "jetway.toml")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot read"):
        load_settings(tmp_path / "nowhere.toml")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[http]\nlisten = '127.0.0.1:1000'\n[heartbeat]\ninterval = '10s'\nlate_after = 2.5"
    monkeypatch.setenv("JETWAY_HTTP__LISTEN", "127.0.0.1:2000")
    monkeypatch.setenv("JETWAY_HEARTBEAT__INTERVAL", "20s")
    monkeypatch.setenv("JETWAY_LIFECYCLE__KNOWN_POLLERS", '["a", "b"]')
    settings = load(tmp_path, text)
    assert (settings.http.listen, settings.interval_seconds) == ("127.0.0.1:2000", 20)
    assert settings.heartbeat.late_after == 2.5, "the rest of the section stays the file's"
    assert settings.lifecycle.known_pollers == ("a", "b")


def test_a_list_in_the_environment_that_is_no_json_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETWAY_NATS__URLS", "nats://x")
    assert "nats" in refused(tmp_path)


@pytest.mark.parametrize(
    "listen", ["8080", "'8080'", "':8080'", "'h:x'", "'h:65536'", "'h:-1'", "'h:'", "true"]
)
def test_an_address_is_host_and_port(tmp_path: Path, listen: str) -> None:
    assert "http.listen" in refused(tmp_path, f"[http]\nlisten = {listen}")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[heartbeat]\nlate_after = 5.0", "heartbeat.offline_after"),
        ("[heartbeat]\noffline_after = nan", "heartbeat.offline_after"),
        ("[nats]\nmode = 'external'", "nats.urls"),
        ("[nats]\nurls = ['nats://x']", "nats.urls"),
        ("[nats]\ntls_ca = '/x'", "nats.tls_ca"),
        ("[nats]\ntls_cert = '/x'", "nats.tls_cert, tls_key"),
        ("[nats]\naccount_signing_key_file = '/x'", "nats.urls, creds_file, edge_creds_file, account"),
        ("[nats]\nedge_creds_file = '/x'", "nats.urls, creds_file, edge_creds_file, account"),
        ("[nats]\naccount = 'A'", "nats.account"),
        ("[nats]\nlisten = '0.0.0.0:4222'", "nats.public_urls"),
        ("[nats]\nlisten = 'example:4222'\ncredentials = 'none'", "nats.credentials"),
        ("[nats]\nlisten = 'example:4222'\npublic_urls = ['nats://example:4222']", "nats.public_urls"),
        ("[nats]\nlisten = 'example:4222'\npublic_urls = ['wss://example:443']", "nats.public_urls"),
        ("[nats]\nmode = 'external'\nurls = ['nats://x']\naccount_signing_key_file = '/x'", "nats.account,"),
        ("[nats]\njs_domain = 'hub'", "nats.js_domain"),
        ("[http]\nlisten = '0.0.0.0:80'", "http.listen"),
        ("[http]\nlisten = '0.0.0.0:80'\nallow_plain = true", "http.public_url"),
        ("[http]\nlisten = '[::]:443'\ntls = 'own'", "http.public_url"),
        ("[http]\nlisten = 'gw.example:80'", "http.allow_plain"),
        ("[http]\ntls = 'files'", "http.tls_cert"),
        ("[http]\ntls = 'files'\ntls_cert = '/x'", "http.tls_cert"),
        ("[http]\ntls = 'own'\ntls_key = '/x'", "http.tls_cert"),
        ("[http]\ntls_cert = '/x'\ntls_key = '/x'", "http.tls_cert"),
        ("[http]\ntls = 'own'\npublic_url = 'http://x'", "http.public_url"),
        ("[http]\ntrusted_proxies = ['proxy']", "http.trusted_proxies.0"),
        ("[http]\ntrusted_proxies = ['10.0.0.1/8']", "http.trusted_proxies.0"),
        ("[identity]\nca_cert = '/x'", "identity.ca_cert"),
        ("[identity]\ntrust_domain = 'A'", "identity.trust_domain"),
        ("[identity]\ncertificate_lifetime = '367d'", "identity.certificate_lifetime"),
        ("[database]\nurl = 'postgres://x'", "database.url"),
        ("[lifecycle]\nknown_pollers = ['Bad']", "lifecycle.known_pollers.0"),
        ("[lifecycle]\nimplicit_registration = 'maybe'", "lifecycle.implicit_registration"),
        ("[nats]\nbucket_prefix = 'a.b'", "nats.bucket_prefix"),
        ("[heartbeat]\nsubject_prefix = 'a.*'", "heartbeat.subject_prefix"),
        ("[http]\npublic_url = 'https://x/?q'", "http.public_url"),
        ("[http]\npublic_url = 'https://[::1'", "http.public_url"),
        ('[http]\npublic_url = "https://x\\u0000y"', "http.public_url"),
        ("[http]\npublic_url = 'https://münchen.example'", "http.public_url"),
        (f"[http]\npublic_url = 'https://x/{'y' * 512}'", "http.public_url"),
        ('[nats]\npublic_urls = ["nats://x\\u001by"]', "nats.public_urls.0"),
        ("[nats]\npublic_urls = ['nats://x:99999']", "nats.public_urls.0"),
        ("[nats]\npublic_urls = ['nats://x', 'tls://[::1']", "nats.public_urls.1"),
        ("[nats]\npublic_urls = ['x:4222']", "nats.public_urls.0"),
        ("[nats]\nmode = 'external'\nurls = ['http://x']", "nats.urls.0"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(tmp_path: Path, text: str, name: str) -> None:
    assert name in refused(tmp_path, text)


def test_a_secret_in_the_databases_address_does_not_show(tmp_path: Path) -> None:
    said = refused(tmp_path, "[database]\nurl = 'postgres://user:s3cret@host/db'")
    assert "s3cret" not in said
    assert "s3cret" not in repr(load(tmp_path, "[database]\nurl = 'proton://user:s3cret@host/db'"))
    assert "s3cret" not in repr(load(tmp_path, "[database]\nurl = 'sqlite:///x/s3cret'"))


def test_settings_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    settings = load(tmp_path)
    with pytest.raises(ValidationError):
        settings.http.listen = "x:1"


def test_https_stands_in_the_address_where_it_is_spoken(tmp_path: Path) -> None:
    settings = load(tmp_path, "[http]\ntls = 'own'\nlisten = '10.0.0.7:8443'")
    assert settings.public_url == "https://10.0.0.7:8443"
    assert settings.pins_own_authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tls = 'files'\ntls_cert = '/x'\ntls_key = '/y'",
        "tls = 'own'\ntrusted_proxies = ['10.0.0.7']",
        "listen = '0.0.0.0:80'\nallow_plain = true\npublic_url = 'https://x'",
    ],
)
def test_nothing_is_pinned_where_the_first_contact_meets_another_authority(tmp_path: Path, text: str) -> None:
    assert not load(tmp_path, f"[http]\n{text}").pins_own_authority


@pytest.mark.parametrize(
    ("nats", "credentials", "tls", "urls"),
    [
        ("", False, False, ("nats://127.0.0.1:4222",)),
        ("credentials = 'required'", True, False, ("nats://127.0.0.1:4222",)),
        ("listen = 'nats.example:4222'", True, True, ("tls://nats.example:4222",)),
        ("listen = '0.0.0.0:1'\npublic_urls = ['tls://a.example:1']", True, True, ("tls://a.example:1",)),
        ("tls_cert = '/c'\ntls_key = '/k'", False, True, ("tls://127.0.0.1:4222",)),
        ("mode = 'external'\nurls = ['nats://x:1']", False, False, ("nats://x:1",)),
    ],
)
def test_the_embedded_server_is_guarded_as_soon_as_others_reach_it(
    tmp_path: Path, nats: str, credentials: bool, tls: bool, urls: tuple[str, ...]
) -> None:
    file = tmp_path / "jetway.toml"
    file.write_text(f"[nats]\n{nats}\n")
    settings = load_settings(file)
    assert (settings.nats_credentials, settings.nats_tls) == (credentials, tls)
    assert settings.nats_public_urls == urls
