"""A redeemed package as an archive of files, for hosts without Python.

The file names are those that `jetway join` uses, so `jetway run` takes over such a folder as it is. The same
package gives the same bytes: a retry can be compared.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_STATIC = Path(__file__).resolve().parent / "static"
# Read at once: a token is spent by the time its archive is made, so nothing may be missing then.
_TEMPLATES = {name: (_STATIC / name).read_text(encoding="utf-8") for name in ("README.txt", "start.sh")}
_PLACEHOLDER = re.compile(r"@\{(\w+)\}")
_PRIVATE, _PUBLIC, _PROGRAM = 0o600, 0o644, 0o700


def build_archive(document: Mapping[str, Any], delivered_at: datetime | None) -> bytes:
    """The `.tar.gz` of a redeemed package's document."""
    moment = int((delivered_at or datetime.fromtimestamp(0, UTC)).timestamp())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (mode, text) in _files(document).items():
            _add(archive, name, text.encode(), mode, moment)
    return gzip.compress(packed.getvalue(), mtime=moment)


def _files(document: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Name → mode and contents. service.json comes last: where it stands, the rest stands too."""
    nats, identity = document["nats"], document["identity"]
    optional = {
        "nats.creds": (_PRIVATE, nats["creds"]),
        "ca.pem": (_PUBLIC, nats["ca_pem"]),
        "certificate.pem": (_PUBLIC, identity["certificate_pem"]),
        "identity-ca.pem": (_PUBLIC, identity["ca_pem"]),
    }
    files = {name: entry for name, entry in optional.items() if entry[1]}
    files["README.txt"] = (_PUBLIC, _readme(document, sorted(files)))
    files["start.sh"] = (_PROGRAM, _start_script(document))
    files["service.json"] = (
        _PRIVATE,
        json.dumps(_without_creds(document), indent=2, ensure_ascii=False) + "\n",
    )
    return files


def _without_creds(document: Mapping[str, Any]) -> dict[str, Any]:
    """The credentials have a file of their own."""
    nats = {name: value for name, value in document["nats"].items() if name != "creds"}
    return {**document, "nats": nats}


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int, moment: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), mode, moment
    archive.addfile(member, io.BytesIO(data))


def _start_script(document: Mapping[str, Any]) -> str:
    host, port = _first_server(document["nats"]["urls"])
    return _fill(
        "start.sh",
        subject=shlex.quote(document["heartbeat"]["subject"]),
        interval=str(int(document["heartbeat"]["interval_seconds"])),
        urls=shlex.quote(",".join(document["nats"]["urls"])),
        host=shlex.quote(host),
        port=shlex.quote(port),
    )


def _first_server(urls: list[str]) -> tuple[str, str]:
    """Host and port of the first server that speaks the plain protocol; empty where none does."""
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme == "nats" and parts.hostname:
            return parts.hostname, str(parts.port or 4222)
    return "", ""


def _readme(document: Mapping[str, Any], optional: list[str]) -> str:
    service = document["service"]
    about = {
        "nats.creds": "NATS credentials of this service. Keep them private.",
        "ca.pem": "The authority of the NATS servers.",
        "certificate.pem": "The service's X.509 identity.",
        "identity-ca.pem": "The authority of that identity.",
    }
    listed = "".join(f"{name:<18}{about[name]}\n" for name in optional)
    return _fill(
        "README.txt",
        kind=service["service_type"],
        name=service["service_id"],
        package=document["package_id"],
        listed=listed,
        config=document["config"]["key"],
        live=document["config"]["live_subjects"][0],
    )


def _fill(file: str, /, **values: str) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], _TEMPLATES[file])
