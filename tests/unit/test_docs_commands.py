"""What the pages tell people to type exists, and reaches the state of a gateway that runs under systemd."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import typer.core

from jetway.cli import run_command
from jetway.entry.web.install_ways import ways
from support import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
AS_THE_SERVICE = "sudo -u jetway /opt/jetway/bin/jetway"
SETTINGS = "--config /etc/jetway/jetway.toml"
LOCAL = ("backup", "restore", "audit verify", "keys rotate")
_BLOCK = re.compile(r"^```(?:console|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PROMPT = re.compile(r"^[$#] ")
_CALL = re.compile(r"(?:^|[\s|])(?:/opt/jetway/bin/)?jetway (?!/)([^|<>&;]+)")
_OTHERS = ("docker ", "systemctl ", "install ")


def typed() -> Iterator[tuple[str, str]]:
    """Every line of the blocks in which this program is called, with the name of its page."""
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                shown = _PROMPT.sub("", line).partition(" #")[0]
                if _CALL.search(shown) and not shown.startswith(_OTHERS):
                    yield page.name, shown


LINES = list(typed())


def arguments_of(line: str) -> list[str]:
    """What the program is given, with anything in the place of what the shell would fill in."""
    found = _CALL.search(line)
    assert found
    return shlex.split(re.sub(r"\$\([^)]*\)", "x", found[1]))


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program parses what it is given, and calls nothing."""
    monkeypatch.setattr(typer.core.TyperCommand, "invoke", lambda _self, _context: None)


def test_there_are_commands_on_the_pages() -> None:
    assert len(LINES) > 30
    assert {"install.md", "backup.md", "audit.md", "security.md", "edge.md"} <= {page for page, _ in LINES}


@pytest.mark.usefixtures("parsed")
@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_has_the_options_that_a_page_gives_it(
    page: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments_of(line)) == 0, capsys.readouterr().err


@pytest.mark.usefixtures("parsed")
def test_an_option_that_is_not_there_would_be_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["service", "tree", "--state-dir", "/var/lib/jetway"]) == 2
    assert "--state-dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "line"),
    [
        each
        for each in LINES
        if " ".join(arguments_of(each[1])).startswith(LOCAL) or "--local" in arguments_of(each[1])
    ],
)
def test_what_works_on_the_state_itself_is_the_services_with_its_settings(page: str, line: str) -> None:
    assert line.startswith(f"{AS_THE_SERVICE} ")
    assert SETTINGS in line


def test_the_unit_and_the_pages_mean_the_same_program_user_and_settings() -> None:
    unit = (REPOSITORY / "systemd" / "jetway.service").read_text(encoding="utf-8")
    assert f"ExecStart=/opt/jetway/bin/jetway serve {SETTINGS}\n" in unit
    assert "User=jetway\n" in unit


def test_nobody_is_told_to_install_a_strangers_package() -> None:
    """Nothing is published under the project's name: an index would hand out whatever somebody put there."""
    steps = [step.command for way in ways("https://gateway.example", "p1") for step in way.steps]
    shown = "\n".join([*steps, *(page.read_text(encoding="utf-8") for page in PAGES)])
    asked = re.findall(r"pip install (?:--\S+ )*([^\s`:]+)", shown)
    assert len(asked) > 4
    assert set(asked) <= {".", "./edge_jetway-*.whl", "/tmp/edge_jetway-*.whl"}
