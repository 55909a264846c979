from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.edge.joined import load_joined
from jetway.entry.http.archive import build_archive
from jetway.entry.http.edge import wants_archive
from support.builders import NOW


def document(**nats: Any) -> dict[str, Any]:
    return {
        "package_id": "00000000-0000-4000-8000-000000000901",
        "service": {"service_type": "agent", "service_id": "a1", "parent_id": "p1", "poller_id": "p1"},
        "heartbeat": {"subject": "edge.heartbeat.agent.p1.a1", "interval_seconds": 30},
        "nats": {"urls": ["nats://127.0.0.1:4222"], "creds": "", "ca_pem": ""} | nats,
        "config": {
            "bucket": "config",
            "key": "config/pollers/p1/agents/a1.json",
            "watch_bucket": "config_watch",
            "watch_keys": ["config.pollers.p1.agents.a1", "config.agents.a1.checkers.*"],
            "live_subjects": ["edge.config.pollers.p1.agents.a1", "edge.config.agents.a1.checkers.*"],
        },
        "identity": {"certificate_pem": "", "ca_pem": "", "spiffe_id": ""},
    }


def unpack(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        return {member.name: member for member in opened.getmembers()}


def extract(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        opened.extractall(folder, filter="data")


def test_the_same_package_gives_the_same_bytes() -> None:
    assert build_archive(document(), NOW) == build_archive(document(), NOW)
    assert build_archive(document(), NOW) != build_archive(document(), NOW + timedelta(seconds=1))


def test_files_without_credentials() -> None:
    members = unpack(build_archive(document(), NOW))
    assert list(members) == ["README.txt", "start.sh", "service.json"]
    assert members["start.sh"].mode == 0o700
    assert {member.mtime for member in members.values()} == {int(NOW.timestamp())}
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}


def test_credentials_have_a_private_file_of_their_own(tmp_path: Path) -> None:
    archive = build_archive(document(creds="SECRET", ca_pem="CA"), NOW)
    members = unpack(archive)
    assert members["nats.creds"].mode == 0o600
    assert members["ca.pem"].mode == 0o644
    extract(archive, tmp_path)
    assert (tmp_path / "nats.creds").read_text() == "SECRET"
    assert "SECRET" not in (tmp_path / "service.json").read_text()
    assert "nats.creds" in (tmp_path / "README.txt").read_text()


def test_the_runner_takes_the_folder_as_it_is(tmp_path: Path) -> None:
    extract(build_archive(document(), NOW), tmp_path)
    joined = load_joined(tmp_path)
    assert joined.name == "agent a1"
    assert json.loads((tmp_path / "service.json").read_text())["nats"] == {
        "urls": ["nats://127.0.0.1:4222"],
        "ca_pem": "",
    }


def test_nothing_in_the_answer_can_run_in_the_shell(tmp_path: Path) -> None:
    evil = document(urls=["nats://127.0.0.1:4222/$(touch${IFS}hacked)';touch hacked;'"])
    extract(build_archive(evil, NOW), tmp_path)
    # A command search path without jetway, nats or nc: the script gives up at once.
    done = subprocess.run(
        ["/bin/sh", "./start.sh"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert not (tmp_path / "hacked").exists()


def test_the_start_script_hands_over_to_an_installed_jetway(tmp_path: Path) -> None:
    extract(build_archive(document(), NOW), tmp_path)
    program = tmp_path / "jetway"
    program.write_text('#!/bin/sh\necho "ran $*"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [str(tmp_path / "start.sh")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"ran run --dir {tmp_path}\n"


@pytest.mark.parametrize(
    ("accept", "archive"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/gzip", True),
        ("application/gzip, application/json;q=0.5", True),
        ("application/json, application/gzip", False),
        ("application/gzip;q=0", False),
        ("APPLICATION/GZIP", True),
    ],
)
def test_the_archive_comes_where_it_is_asked_for(accept: str, archive: bool) -> None:
    assert wants_archive(accept) is archive
