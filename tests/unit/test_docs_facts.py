"""What the pages say in passing, held against what it is taken from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from bench.__main__ import _PARTS
from jetway.adapters.nats.schema import OLDEST_SERVER
from jetway.adapters.presence_file import SNAPSHOT_FILE
from jetway.adapters.statedir import LEDGER_FILE, LOCK_FILE, RESTORE_FILE
from jetway.app import ADMIN_TOKEN_FILE, DAEMON_FILE
from jetway.settings import Settings
from support import REPOSITORY

DOCS = REPOSITORY / "docs"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STATE_FILES = (
    LEDGER_FILE,
    LOCK_FILE,
    RESTORE_FILE,
    DAEMON_FILE,
    ADMIN_TOKEN_FILE,
    SNAPSHOT_FILE,
    "registry.db",
)


def section(page: str, title: str) -> str:
    """From that heading to the next one of its kind."""
    return (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", [*STATE_FILES, "nats/", "keys/", "checkpoints/", "archive/"])
def test_what_lies_in_the_state_directory_is_told(name: str) -> None:
    assert f"`{name}`" in section("install.md", "What is in the state directory")


def test_the_archive_is_where_the_page_says() -> None:
    assert Settings(state_dir=Path("/s")).archive_dir == Path("/s/archive")


def test_the_oldest_server_is_the_one_that_is_taken() -> None:
    oldest = ".".join(map(str, OLDEST_SERVER[:2]))
    assert f"NATS server {oldest} or newer" in section("install.md", "Your own NATS")


def test_the_rules_name_a_heading_that_is_there() -> None:
    rules = (REPOSITORY / "config" / "prometheus" / "jetway-alerts.yml").read_text(encoding="utf-8")
    page, title = re.findall(r'told in docs/(\S+), under "(.+)"', rules)[0]
    assert "| `/readyz` says |" in section(page, title)


def test_internet_settings_are_installed_as_what_the_unit_starts_with() -> None:
    installed = "install -D -m 640 -g jetway config/jetway-internet.toml /etc/jetway/jetway.toml"
    assert installed in section("install.md", "On the internet")
    settings = (REPOSITORY / "config" / "jetway-internet.toml").read_text(encoding="utf-8")
    assert installed in settings
    assert "/etc/jetway/jetway-internet.toml" not in settings


@pytest.mark.parametrize("part", _PARTS)
def test_every_benchmark_is_named(part: str) -> None:
    assert f"[{part}]" in (DOCS / "performance.md").read_text(encoding="utf-8").partition("prints these")[0]


def test_every_stream_in_proton_is_told() -> None:
    migrations = sorted((REPOSITORY / "migrations" / "proton").glob("*.sql"))
    text = "".join(each.read_text(encoding="utf-8") for each in migrations)
    made = re.findall(r"CREATE (?:STREAM|VIEW) IF NOT EXISTS (\w+)", text)
    assert "service_count_samples" in made
    told = section("proton.md", "Reading it")
    assert [name for name in made if f"`{name}`" not in told] == []


def test_who_says_that_it_is_typed_has_the_marker() -> None:
    """Without it type checkers take nothing from an installed package."""
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (REPOSITORY / "daemon" / "jetway" / "py.typed").is_file()


def test_ci_brings_the_programs_that_tests_otherwise_go_without() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    asked = (REPOSITORY / "tests" / "integration" / "test_http_installer.py").read_text(encoding="utf-8")
    listed = re.findall(r"for \w+ in \((\"[^)]+)\) if shutil.which", asked)
    named = {name for each in listed for name in re.findall(r'"(\w+)"', each)}
    assert named == {"dash", "bash", "curl", "wget"}
    brought = re.findall(r"^for program in (.+); do$", script, re.MULTILINE)[0].split()
    assert named | {"openssl"} <= set(brought)
