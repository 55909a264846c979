"""Makes docs/failure-modes.md of a real run (`python3 dev.py failure-modes`), or of a record given as argument."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "failure-modes.md"
GROUPS = ("embedded nats-server", "external nats-server", "connection to NATS", "database", "daemon")
_SHOWN = 4

HEAD = """\
# What happens when something fails

**Made by `python3 dev.py failure-modes` from a real run; do not edit.** It runs `tests/fault/test_real_*.py` with
faults of up to two minutes (`JETWAY_TEST_LONG=1`; without it each lasts a few seconds) and takes about {minutes}
minutes. The last run was on {machine}.
Times are what was seen there, on a machine that others used as well; nothing promises them.

Each fault is made to happen to a real daemon and a real nats-server under a light load. Two clients create and
redeem all the time and repeat under the same `Idempotency-Key` what was not acknowledged; two services with an
interval of 2 s beat four times a second; a monitor asks `/readyz`, `/healthz` and two services ten times a second.
Afterwards the test reads ledger, config documents, tables and trail past the daemon and compares them with each
other and with what was acknowledged. *Nothing of n* means that all n acknowledged creations and every redemption
are there, every document and row is what the ledger says, and every event is there once. In every case the daemon
stayed below {limit} MB of resident memory (the largest seen: {largest} MB), and its log below 64 KiB a second.
*Whole again* means that `/readyz` says `ok` and a creation is answered with its document and its row written.

Numbers in brackets: how many calls were answered so, and how long the slowest took where that was a second or
more. A creation that says *queued* is in the ledger; its document or row follows. `503 unavailable`: nothing was
done. `503 outcome_unknown`: repeat it under the same key.
"""

TAIL = """
## Not among them

**A power cut.** Killing a process leaves what it wrote in the kernel's memory, so these tests prove nothing about
`fsync`. The embedded server is set to bring every write to the disk before it acknowledges it, and the database
commits with `synchronous = FULL`; that both and the disk keep the promise has not been tried here. The same goes
for a disk that returns wrong bytes, for a machine that is suspended, and for a cluster of NATS servers.

**An external nats-server without room.** Version 2.15 writes nothing more after such a failure until it is started
again, as the embedded one shows; the daemon can start only its own. The link stands and the ledger can be read, so
`/readyz` tells only once somebody tried: after creations that were answered 503 it says `degraded`, until one is
taken or none was tried for a minute.

A database that is made read-only *while* it is open stays writable for the process that has it open, so there is
nothing to see before the next start.
"""


def main(arguments: list[str]) -> int:
    """Run the tests unless a record is given, and write the document."""
    if arguments:
        return write(json.loads(Path(arguments[0]).read_text()))
    with tempfile.TemporaryDirectory(prefix="jetway-faults-") as folder:
        record = Path(folder, "record.json")
        environment = {**os.environ, "JETWAY_TEST_LONG": "1", "JETWAY_TEST_RECORD": str(record)}
        tests = sorted(
            str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "fault").glob("test_real_*.py")
        )
        command = [sys.executable, "-m", "pytest", "-q", *tests]
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if status == 0:
            write(json.loads(record.read_text()))
        return status


def write(rows: list[dict[str, Any]]) -> int:
    TARGET.write_text(render(rows), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}: {len(rows)} rows")
    return 0


def render(rows: list[dict[str, Any]]) -> str:
    """The whole document."""
    rows = sorted(rows, key=lambda row: next(i for i, g in enumerate(GROUPS) if row["fault"].startswith(g)))
    faults = [row for row in rows if "refused" not in row]
    refusals = [row for row in rows if "refused" in row]
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    minutes = round(sum(row["lasted"] + 10 for row in faults) / 60) + 1
    largest = max(row["rss_mb"] for row in faults)
    parts = [HEAD.format(minutes=minutes, machine=machine, limit=256, largest=largest)]
    for group in GROUPS:
        parts += _section(group, [row for row in faults if row["fault"].startswith(group)])
    parts.append("\n## What the daemon refuses to start with\n")
    parts.append("It ends with status 1 and this sentence, and starts once the reason is gone.\n")
    parts += [_table(("fault", "what it says"), [(_fault(row), _plain(row["refused"])) for row in refusals])]
    return "\n".join(parts) + "\n" + TAIL


def _section(group: str, rows: list[dict[str, Any]]) -> list[str]:
    columns = (
        "fault",
        "creations",
        "reads",
        "heartbeats",
        "/readyz",
        "/healthz",
        "whole again after",
        "lost",
    )
    cells = [
        (
            f"{_fault(row)}, {row['lasted']:.0f} s",
            _answers(row["creates"]),
            _answers(row["reads"]),
            row["heartbeats"],
            _answers(row["readyz"]),
            _answers(row["healthz"]),
            row["whole_after"],
            row["lost"],
        )
        for row in rows
    ]
    remarks = [f"- *{_fault(row)}*: {row['remark']}" for row in rows if row["remark"]]
    title = group if group.startswith("connection") else f"the {group}"
    return [
        f"\n## {title[0].upper()}{title[1:]}\n",
        _table(columns, cells),
        *(["", *remarks] if remarks else []),
    ]


def _fault(row: dict[str, Any]) -> str:
    return str(row["fault"]).partition(": ")[2] if "refused" not in row else str(row["fault"])


def _answers(said: list[dict[str, Any]]) -> str:
    shown = [f"{each['what']} [{_how(each)}]" for each in said[:_SHOWN]]
    return "; ".join(shown + (["…"] if len(said) > _SHOWN else [])) or "none asked"


def _how(each: dict[str, Any]) -> str:
    slow = f", {each['slowest']:.0f} s" if each["slowest"] >= 1 else ""
    return f"{each['count']}{slow}"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _plain(sentence: str) -> str:
    """Without what is of this run alone."""
    sentence = re.sub(r"/\S+/(?=registry\.db)", "…/", sentence.removeprefix("jetway: "))
    return re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "…", sentence)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
