"""The settings for Proton: what is refused, what is shown, and that no secret is in either."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jetway.cli import run_command
from jetway.cli.program import build
from jetway.core.errors import StartupError
from jetway.database_url import ProtonUrl, is_proton, parse_proton_url
from jetway.databases import open_database
from jetway.settings import Settings, load_settings

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("JETWAY_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)


def _load(tmp_path: Path, **database: str) -> Settings:
    return load_settings(overrides={"state_dir": tmp_path / "state", "database": database})


def _refused(tmp_path: Path, **database: str) -> str:
    with pytest.raises(StartupError) as caught:
        _load(tmp_path, **database)
    assert SECRET not in str(caught.value)
    return str(caught.value)


class TestUrl:
    def test_all_of_it(self) -> None:
        assert parse_proton_url("protons://jet%40way:a%2Fb%3A%20@db.example:1234/registry") == ProtonUrl(
            host="db.example", port=1234, database="registry", user="jet@way", password="a/b: ", tls=True
        )

    def test_the_rest_has_defaults(self) -> None:
        plain, secure = parse_proton_url("proton://db"), parse_proton_url("protons://[::1]")
        assert (plain.port, plain.database, plain.user, plain.password, plain.tls) == (
            *(8463, "default", "default", ""),
            False,
        )
        assert (secure.host, secure.port, secure.tls) == ("::1", 9440, True)

    def test_its_label_holds_neither_user_nor_password(self) -> None:
        url = parse_proton_url(f"protons://ann:{SECRET}@[::1]:9440/registry")
        assert url.label == "protons://[::1]:9440/registry"
        assert SECRET not in repr(url)

    def test_which_urls_are_meant(self) -> None:
        assert is_proton("proton://x") and is_proton("protons://")
        assert not is_proton("sqlite:///proton://x")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"proton://ann:{SECRET}@", "must hold a host"),
        (f"proton://ann:{SECRET}@db:x/d", "cannot be taken apart"),
        (f"proton://ann:{SECRET}/1@db:8463/d", "cannot be taken apart"),
        (f"proton://ann:{SECRET}@db:99999/d", "cannot be taken apart"),
        (f"proton://ann:{SECRET}@db/d?secure=1", "takes no options"),
        (f"proton://ann:{SECRET}#1@db/d", "cannot be taken apart|takes no options"),
        (f"proton://ann:{SECRET} x@db/d", "visible ASCII"),
        (f"proton://ann:{SECRET}@db/a;b", "the database's name"),
    ],
)
def test_a_url_that_means_nothing_is_refused_without_repeating_it(
    tmp_path: Path, url: str, reason: str
) -> None:
    with pytest.raises(StartupError, match=f"^database.url: .*({reason})") as caught:
        _load(tmp_path, url=url)
    assert SECRET not in str(caught.value)


def test_what_does_not_go_together(tmp_path: Path) -> None:
    file = str(tmp_path / "password")
    both = _refused(tmp_path, url=f"proton://ann:{SECRET}@db", password_file=file)
    assert both == "database.password_file: database.url holds a password already"
    assert "only with protons://" in _refused(tmp_path, url="proton://db", tls_ca=file)
    assert "only with proton://" in _refused(tmp_path, tls_ca=file)
    assert "must be sqlite:///path or proton://" in _refused(tmp_path, url=f"mysql://ann:{SECRET}@db")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_check_config_hides_user_and_password(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETWAY_DATABASE__URL", f"protons://ann:{SECRET}@db.example:9440/registry")
    shown = CliRunner().invoke(build(), ["check-config", "--state-dir", str(tmp_path), *arguments])
    assert shown.exit_code == 0
    assert SECRET not in shown.output and "ann" not in shown.output
    assert "protons://[hidden]@db.example:9440/registry" in shown.output
    if arguments:
        assert json.loads(shown.output)["database"]["tls_ca"] is None


async def test_a_password_file_that_is_missing_is_named(tmp_path: Path) -> None:
    database = open_database(
        _load(tmp_path, url="proton://ann@127.0.0.1:1", password_file=str(tmp_path / "none"))
    )
    with pytest.raises(StartupError, match=r"database.password_file: .*none cannot be read: No such file"):
        await database.open()
    await database.close()


def test_an_authority_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    with pytest.raises(StartupError, match=r"database.tls_ca: .*ca.pem cannot be used"):
        open_database(_load(tmp_path, url="protons://127.0.0.1:1", tls_ca=str(file)))


def test_asking_what_is_pending_makes_no_file(tmp_path: Path) -> None:
    told = CliRunner().invoke(build(), ["migrate", "--status", "--state-dir", str(tmp_path / "state")])
    assert (told.exit_code, told.output) == (
        0,
        "pending  0001_registry.sql\npending  0002_count_samples.sql\n",
    )
    assert list(tmp_path.rglob("*")) == []


def test_migrate_says_that_proton_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JETWAY_DATABASE__URL", f"proton://ann:{SECRET}@127.0.0.1:1/registry")
    assert run_command(["migrate", "--state-dir", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "proton://127.0.0.1:1/registry does not answer: Connection refused" in told.err
    assert SECRET not in told.out + told.err
