"""`jetway keys`: what it prints, and what it says when it cannot."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from jetway import rotation
from jetway.cli import run_command
from jetway.core.errors import StartupError
from jetway.rotation import Rotation
from jetway.settings import Settings


def rotated(monkeypatch: pytest.MonkeyPatch, result: Rotation | StartupError) -> list[Settings]:
    asked: list[Settings] = []

    def rotate(settings: Settings) -> Rotation:
        asked.append(settings)
        if isinstance(result, StartupError):
            raise result
        return result

    monkeypatch.setattr(rotation, "rotate", rotate)
    return asked


def test_it_says_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = rotated(monkeypatch, Rotation("/x/vault.keys", "new", 3, ("old",), by_hand=False))
    assert run_command(["keys", "rotate", "--state-dir", str(tmp_path)]) == 0
    assert [settings.state_dir for settings in asked] == [tmp_path]
    assert capsys.readouterr().out.splitlines() == [
        "the key new writes now; secrets encrypted anew: 3",
        "taken out of /x/vault.keys: old",
    ]


def test_of_a_given_file_it_says_what_is_left_to_the_operator(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rotated(monkeypatch, Rotation("/x/given.keys", "new", 0, ("old",), by_hand=True))
    assert run_command(["keys", "rotate"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "take the old key out of /x/given.keys, wherever it stands: old"
    )


def test_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rotated(monkeypatch, Rotation("/x/vault.keys", "new", 3, ("old",), by_hand=False))
    assert run_command(["keys", "rotate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": "/x/vault.keys",
        "key_id": "new",
        "resealed": 3,
        "retired": ["old"],
        "by_hand": False,
    }


def test_what_cannot_be_done_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rotated(monkeypatch, StartupError("state_dir: /x is in use by another daemon"))
    assert run_command(["keys", "rotate"]) == 1
    assert capsys.readouterr().err == "jetway: state_dir: /x is in use by another daemon\n"


def test_a_generated_key_is_a_line_for_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for _ in range(2):
        assert run_command(["keys", "generate"]) == 0
        lines.append(capsys.readouterr().out)
    assert len(set(lines)) == 2
    assert [len(base64.b64decode(line, validate=False)) for line in lines] == [32, 32]
