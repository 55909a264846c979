"""`jetway audit export` into a file: all of it, or no file and a line that says why."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from jetway.cli import run_command
from jetway.cli.client import Client


class _Full(io.BufferedWriter):
    """A file on a disk that is found to be full when what was written last is to be kept."""

    def close(self) -> None:
        self.raw.close()
        raise OSError(28, "No space left on device")


def _export(self: Client, path: str, query: object, sink: Any, **_: object) -> None:
    sink(b'{"event_id": "1"}\n')


def test_a_file_is_written_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "stream", _export)
    monkeypatch.setenv("JETWAY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("JETWAY_TOKEN", "jwa_x")
    file = tmp_path / "trail.jsonl"
    assert run_command(["audit", "export", "--output", str(file)]) == 0
    assert file.read_bytes() == b'{"event_id": "1"}\n'
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Client, "stream", _export)
    monkeypatch.setenv("JETWAY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("JETWAY_TOKEN", "jwa_x")
    monkeypatch.setattr(os, "fdopen", lambda descriptor, _mode: _Full(io.FileIO(descriptor, "wb")))
    file = tmp_path / "trail.jsonl"
    assert run_command(["audit", "export", "--output", str(file)]) == 1
    assert capsys.readouterr().err == f"jetway: {file} cannot be written: No space left on device\n"
    assert not file.exists()
