"""`jetway audit verify` with the real command: whole after a kill and after a restore, and 1 where it is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

from support.daemon import SERVICES, Daemon, eventually

NewDaemon = Callable[..., Daemon]


def _told(daemon: Daemon) -> None:
    """A checkpoint covers what the trail says when it is made."""
    assert daemon.get(f"{SERVICES}/pollers/p1/events")["total"]


def test_it_is_whole_after_a_kill_and_a_restore_and_says_what_is_not(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    daemon.create("poller", "p1")
    eventually(lambda: _told(daemon))
    assert daemon.json_of("job", "run", "checkpoint")["outcome"] == "done"
    daemon.create("poller", "p2")
    daemon.kill_all()
    daemon.start()
    file = daemon.state.parent / "backup.tar.gz"
    daemon.json_of("backup", str(file))
    daemon.create("poller", "lost")
    assert daemon.json_of("audit", "verify")["findings"] == []
    assert daemon.stop() == 0
    lost = daemon.state.with_name("lost")
    daemon.state.rename(lost)

    daemon.json_of("restore", str(file))
    shutil.copytree(lost / "checkpoints", daemon.state / "checkpoints")
    daemon.start()
    assert daemon.json_of("job", "run", "checkpoint")["outcome"] == "done"

    done = daemon.json_of("audit", "verify")
    assert (done["findings"], done["checkpoints"], done["records"]) == ([], 2, 2)
    assert any(note.startswith("restored at ") for note in done["notes"]), "a restore is always told"

    public = daemon.state / "checkpoints" / "public-key.pem"
    kept, *_ = sorted(daemon.state.glob("checkpoints/*.json"))
    elsewhere = daemon.state.parent / "elsewhere"
    elsewhere.mkdir()
    forged = json.loads(kept.read_text())
    forged["text"] = forged["text"].replace('"records":1', '"records":2')
    (elsewhere / kept.name).write_text(json.dumps(forged))
    told = daemon.command("audit", "verify", "--checkpoints", str(elsewhere), "--public-key", str(public))
    assert told.returncode == 1
    assert "the signature is not by the gateway's key" in told.stderr
    shutil.rmtree(lost)
