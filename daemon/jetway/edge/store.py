"""Write a redeemed package into its folder, what an earlier service left there first put aside."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from jetway.edge.files import FOLDER, PRIVATE, sync_folder, write_file
from jetway.edge.joined import (
    CA_FILE,
    CERTIFICATE_FILE,
    CONFIG_FOLDER,
    CREDS_FILE,
    IDENTITY_CA_FILE,
    KEY_FILE,
    SERVICE_FILE,
    Joined,
)
from jetway.edge.keys import HostKeys, complete_creds, keys_file

_PUBLIC = 0o644
_MODES = {
    CREDS_FILE: PRIVATE,
    CA_FILE: _PUBLIC,
    CERTIFICATE_FILE: _PUBLIC,
    KEY_FILE: PRIVATE,
    IDENTITY_CA_FILE: _PUBLIC,
    SERVICE_FILE: PRIVATE,
}


def save(folder: Path, joined: Joined, raw: bytes, keys: HostKeys) -> Path | None:
    """Write everything, service.json last. Returns where the files of an earlier service went, if any."""
    contents = _contents(joined, raw, keys)
    backup = _back_up(folder, keep=keys_file(folder, keys.package_id).name)
    for name in _MODES:
        if name not in contents:
            (folder / name).unlink(missing_ok=True)
    for name, data in contents.items():
        write_file(folder / name, data, mode=_MODES[name])
    if backup is not None:
        _drop_leftovers(folder, keys)
    return backup


def _contents(joined: Joined, raw: bytes, keys: HostKeys) -> dict[str, bytes]:
    """File name → contents, in the order in which they are written."""
    identity = joined.identity
    certificate = identity.certificate_pem
    texts = {
        CREDS_FILE: complete_creds(joined.nats.creds, keys.nats_seed),
        CA_FILE: joined.nats.ca_pem,
        IDENTITY_CA_FILE: identity.ca_pem,
        CERTIFICATE_FILE: certificate,
        KEY_FILE: keys.key_pem if certificate else "",
    }
    written = {name: text.encode() for name, text in texts.items() if text.strip()}
    return written | {SERVICE_FILE: _without_creds(raw)}


def _without_creds(raw: bytes) -> bytes:
    """The answer as the gateway gave it, fields that we do not know included, the credentials taken out."""
    answer = json.loads(raw)
    answer["nats"].pop("creds", None)
    return json.dumps(answer, indent=2, ensure_ascii=False).encode()


def _back_up(folder: Path, keep: str) -> Path | None:
    """Copy an earlier service's files aside. Copies: until the new ones stand, the old service can run."""
    names = [name for name in _MODES if (folder / name).exists()]
    if SERVICE_FILE not in names:
        return None
    backup = _new_folder(folder)
    for name in names:
        shutil.copy2(folder / name, backup / name)
    for path in folder.glob("keys-*.json"):
        if path.name != keep:
            shutil.copy2(path, backup / path.name)
    if (folder / CONFIG_FOLDER).is_dir():
        shutil.copytree(folder / CONFIG_FOLDER, backup / CONFIG_FOLDER)
    sync_folder(backup)
    return backup


def _new_folder(folder: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        backup = folder / f"backup-{stamp}{suffix}"
        try:
            backup.mkdir(mode=FOLDER)
        except FileExistsError:
            continue
        return backup
    raise FileExistsError(f"{folder} is full of backups")


def _drop_leftovers(folder: Path, keys: HostKeys) -> None:
    """What only the earlier service needed; it is in the backup."""
    keep = keys_file(folder, keys.package_id)
    for path in folder.glob("keys-*.json"):
        if path != keep:
            path.unlink()
    shutil.rmtree(folder / CONFIG_FOLDER, ignore_errors=True)
