"""The backup's file: what goes in comes out, and nothing that is cut off or altered is taken for a backup."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jetway.adapters.backup import archive as module
from jetway.adapters.backup.archive import MANIFEST, SUMS, Archive, ArchiveWriter
from jetway.core.backup import BadBackupError, Line, Manifest, encode_manifest
from support.builders import NOW

LINES = [
    Line("config/pollers/p.json", b'{"label": "\xc3\xbc"}'),
    Line("config/pollers/q.json", b"\xff\x00 no text"),
    Line("config/pollers/r.json", b"", again=True),
    Line("config/pollers/s.json", None, again=True),
]


def manifest(**changes: object) -> Manifest:
    fields = {"product": "0.1.0", "created_at": NOW, "ledger_id": "l-1", "epoch": 7, "ledger_created_at": "t"}
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def write(path: Path, *, replace: bool = False) -> Path:
    writer = ArchiveWriter(path, manifest())
    try:
        writer.add_file("keys/token-secret.key", b"secret")
        writer.add_file("admin.token", b"jwa")
        writer.add_lines("config", LINES[:2])
        writer.add_lines("config", LINES[2:])
        writer.add_lines("registry", [])
        writer.add_lines("meta", [Line("token_key", b"1")])
        writer.finish()
        writer.commit(replace=replace)
    finally:
        writer.abandon()
    return path


def read(path: Path) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for part in Archive(path).parts():
        found += [(part.section, line) for line in part.lines] or [(part.name, part.data)]
    return found


WHOLE = [
    ("keys/token-secret.key", b"secret"),
    ("admin.token", b"jwa"),
    *(("config", line) for line in LINES),
    ("meta", Line("token_key", b"1")),
]


@pytest.mark.parametrize("part_bytes", [1, 100, module._PART_BYTES])
def test_what_goes_in_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int) -> None:
    monkeypatch.setattr(module, "_PART_BYTES", part_bytes)
    path = write(tmp_path / "b.tar.gz")
    assert Archive(path).manifest == manifest()
    assert read(path) == WHOLE


def test_it_is_for_its_owner_alone_and_a_person_can_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar.gz")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as tar:
        member = tar.extractfile("config/000001.jsonl")
        assert member is not None
        assert json.loads(member.readline())["text"] == '{"label": "ü"}'
    assert [each.name for each in tmp_path.iterdir()] == ["b.tar.gz"]


def test_a_file_that_is_there_is_replaced_only_when_told_to(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write(path)
    assert path.read_bytes() == b"precious"
    assert read(write(path, replace=True)) == WHOLE
    assert [each.name for each in tmp_path.iterdir()] == ["b.tar.gz"]


def test_a_file_system_without_hard_links_takes_a_backup_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.os, "link", link)
    path = tmp_path / "b.tar.gz"
    assert read(write(path)) == WHOLE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write(path)
    assert read(path) == WHOLE
    assert [each.name for each in tmp_path.iterdir()] == ["b.tar.gz"]


def test_an_abandoned_backup_leaves_nothing(tmp_path: Path) -> None:
    writer = ArchiveWriter(tmp_path / "b.tar.gz", manifest())
    writer.add_lines("config", LINES)
    writer.abandon()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "b.tar.gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    refused = 0
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        try:
            found = read(cut)
        except BadBackupError as error:
            refused += 1
            assert "secret" not in str(error).replace("token-secret", "")
        else:
            assert found == WHOLE  # nothing but padding was lost
    assert refused > len(range(0, len(whole), 7)) * 0.9


def test_no_altered_byte_alters_what_is_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "b.tar.gz").read_bytes()
    altered = tmp_path / "altered.tar.gz"
    refused = 0
    for at in range(0, len(whole), 3):
        altered.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert read(altered) == WHOLE
        except BadBackupError:
            refused += 1
    assert refused > len(whole) / 3 * 0.8


def _tar(path: Path, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name not in (MANIFEST, SUMS):
                info.type = kind
            tar.addfile(info, io.BytesIO(data))
    return path


HEAD = (MANIFEST, encode_manifest(manifest()))
EMPTY_SUMS = (SUMS, b'{"sha256": {}}')


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p, "no file"),
        (lambda p: _tar(p), "no backup"),
        (lambda p: _tar(p, ("other", b"")), "no backup"),
        (lambda p: _tar(p, (MANIFEST, b"{}")), "does not say"),
        (lambda p: _tar(p, (MANIFEST, b'{"format": "x", "version": 1}')), "not a 'jetway-backup'"),
        (lambda p: _tar(p, (MANIFEST, HEAD[1].replace(b'"version": 1', b'"version": 2'))), "reads version 1"),
        (lambda p: _tar(p, (MANIFEST, HEAD[1].replace(b'"epoch": 7', b'"epoch": "x"'))), "manifest"),
        (lambda p: _tar(p, HEAD), "its end is missing"),
        (lambda p: _tar(p, HEAD, EMPTY_SUMS), "is not what was written"),
        (lambda p: _tar(p, HEAD, (SUMS, b"[]")), "sums cannot be read"),
        (lambda p: _tar(p, HEAD, ("files/../../etc/passwd", b"x"), EMPTY_SUMS), "is no file of a backup"),
        (lambda p: _tar(p, HEAD, ("files/keys/../../x", b"x"), EMPTY_SUMS), "is no file of a backup"),
        (lambda p: _tar(p, HEAD, ("files/keys/x", b""), EMPTY_SUMS, kind=tarfile.SYMTYPE), "no file of a"),
        (lambda p: _tar(p, HEAD, ("config/1", b""), ("config/1", b"")), "twice"),
        (lambda p: _tar(p, HEAD, EMPTY_SUMS, ("config/1", b"")), "after its end"),
        (lambda p: _tar(p, HEAD, ("config/1", b"nonsense\n")), "config/1: a line is damaged"),
        (lambda p: _tar(p, HEAD, ("config/1", b'{"key": "a", "text": 5}\n')), "a line is damaged"),
        (lambda p: _tar(p, HEAD, ("config/1", b'{"key": "a", "base64": "?"}\n')), "a line is damaged"),
    ],
)
def test_what_is_no_backup_is_refused_with_a_reason(
    tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    path = make(tmp_path / "b.tar.gz")
    with pytest.raises(BadBackupError, match=says):
        list(Archive(path).parts())
