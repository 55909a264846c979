"""The shipped configuration: the sample holds every key at its default, the templates can be filled."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jetway.core.commands import ServiceSpec
from jetway.core.ids import ServiceType
from jetway.core.templates import fill, placeholders, template_variables
from jetway.settings import Settings, load_settings

CONFIG = Path(__file__).resolve().parents[2] / "config"
SAMPLE = CONFIG / "jetway.toml"
TEMPLATES = sorted((CONFIG / "templates" / "checkers").glob("*.json"))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("JETWAY_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)


def keys() -> list[tuple[str, str]]:
    """All (section, key) pairs of the settings; the section of a top-level key is empty."""
    found: list[tuple[str, str]] = []
    for name, field in Settings.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += [(name, key) for key in kind.model_fields]
        else:
            found.append(("", name))
    return found


def test_the_sample_equals_the_defaults() -> None:
    assert load_settings(SAMPLE).model_dump() == load_settings().model_dump()


@pytest.mark.parametrize(("section", "key"), keys(), ids=lambda name: name or "top")
def test_every_key_stands_in_the_sample_with_its_variable_and_why(section: str, key: str) -> None:
    lines = SAMPLE.read_text().splitlines()
    start = lines.index(f"[{section}]") if section else 0
    rest = lines[start + 1 :]
    end = next((index for index, line in enumerate(rest) if line.startswith("[")), len(rest))
    own = [index for index, line in enumerate(rest[:end]) if re.match(rf"(# )?{key} = ", line)]
    assert len(own) == 1
    variable = f"JETWAY_{section.upper()}__{key.upper()}" if section else f"JETWAY_{key.upper()}"
    assert rest[own[0]].endswith(f"# {variable}")
    before = rest[own[0] - 1]
    assert before.startswith("# ") or " = " in before, "no comment says why"


def test_only_what_has_no_constant_default_is_commented_out() -> None:
    given = tomllib.loads(SAMPLE.read_text())
    named = {(section, key) for section, values in given.items() for key in values}
    missing = {
        f"{section}.{key}" if section else key for section, key in keys() if (section, key) not in named
    }
    assert missing == {
        "state_dir",
        *("nats.creds_file", "nats.tls_ca", "nats.tls_cert", "nats.tls_key"),
        *("nats.account_signing_key_file", "nats.edge_creds_file"),
        *("http.tls_cert", "http.tls_key", "identity.ca_cert", "identity.ca_key", "vault.key_file"),
        *("database.password_file", "database.tls_ca"),
    }


def test_the_variables_named_in_the_sample_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETWAY_HTTP__LISTEN", "127.0.0.1:9090")
    monkeypatch.setenv("JETWAY_NATS__PUBLIC_URLS", '["tls://nats.example:4222"]')
    settings = load_settings(SAMPLE)
    assert settings.http.listen == "127.0.0.1:9090"
    assert settings.nats.public_urls == ("tls://nats.example:4222",)


def test_there_are_templates() -> None:
    assert [path.stem for path in TEMPLATES] == ["http", "icmp", "snmp", "sysmon"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_can_be_filled_without_further_metadata(path: Path) -> None:
    template = json.loads(path.read_text())
    spec = ServiceSpec(
        service_type=ServiceType.CHECKER,
        service_id="ping-core",
        label="Ping",
        parent_id="core",
        poller_id="site-a",
        checker_kind=path.stem,
    )
    filled = fill(template, template_variables(spec), path.stem)
    assert isinstance(filled, dict)
    assert (filled["name"], filled["type"], filled["agent_id"]) == ("ping-core", path.stem, "core")
    assert placeholders(template) and not placeholders(filled)


def test_the_sample_for_the_internet_holds_what_it_takes() -> None:
    settings = load_settings(CONFIG / "jetway-internet.toml")
    assert settings.http.tls == "own" and settings.pins_own_authority
    assert settings.nats_tls and settings.nats.credentials == "required"
    assert settings.nats.public_urls == ("tls://gateway.example:4222",)
    assert settings.public_url == "https://gateway.example:8443"
