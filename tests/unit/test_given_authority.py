"""An authority that was given is asked for: without it the daemon makes none of its own in its place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from jetway.adapters.authority.ca import CERTIFICATE_FILE, KEY_FILE, load_or_create_authority, open_authority
from jetway.adapters.clock import SystemClock
from jetway.adapters.nats.meta import MetaStore
from jetway.authorities import GIVEN_AUTHORITY, open_authorities
from jetway.core.errors import StartupError
from jetway.settings import Settings

NOW = datetime.now(UTC)
WITHOUT = r"identity\.ca_cert, ca_key: not set, but .* are by the authority {}"


class Agreed:
    """What the ledger remembers."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def agreed(self, name: str) -> str | None:
        return self.values.get(name)

    async def agree(self, name: str, value: str) -> str:
        return self.values.setdefault(name, value)

    async def agree_anew(self, name: str, before: str, value: str) -> None:
        assert self.values[name] == before
        self.values[name] = value


def settings(state: Path, given: Path | None = None) -> Settings:
    identity = {"ca_cert": given / CERTIFICATE_FILE, "ca_key": given / KEY_FILE} if given else {}
    return Settings.model_validate({"state_dir": state, "identity": identity})


def given(folder: Path) -> str:
    return load_or_create_authority(folder, NOW).pin


def made(state: Path) -> list[str]:
    return [name for name in (CERTIFICATE_FILE, KEY_FILE) if (state / "keys" / name).exists()]


def test_the_state_directory_remembers_it(tmp_path: Path) -> None:
    state, pin = tmp_path / "state", given(tmp_path / "given")
    assert open_authority(settings(state, tmp_path / "given"), NOW).pin == pin

    with pytest.raises(StartupError, match=WITHOUT.format(pin)):
        open_authority(settings(state), NOW)
    assert made(state) == []

    other = given(tmp_path / "other")
    assert open_authority(settings(state, tmp_path / "other"), NOW).pin == other
    with pytest.raises(StartupError, match=WITHOUT.format(other)):
        open_authority(settings(state), NOW)


def test_the_gateways_own_is_taken_again_where_it_is_named(tmp_path: Path) -> None:
    state = tmp_path / "state"
    own = open_authority(settings(state), NOW).pin
    given(tmp_path / "given")
    open_authority(settings(state, tmp_path / "given"), NOW)
    with pytest.raises(StartupError, match="name its files in"):
        open_authority(settings(state), NOW)
    assert open_authority(settings(state, state / "keys"), NOW).pin == own
    assert open_authority(settings(state), NOW).pin == own, "once is enough"


async def test_the_ledger_takes_the_gateways_own_back_as_well(tmp_path: Path) -> None:
    ledger, clock, state = cast("MetaStore", Agreed()), SystemClock(), tmp_path / "state"
    own = (await open_authorities(settings(state), ledger, clock)).certificates.pin
    given(tmp_path / "given")
    for named in (tmp_path / "given", state / "keys", None):
        opened = await open_authorities(settings(state, named), ledger, clock)
    assert opened.certificates.pin == own


async def test_the_ledger_remembers_it_for_daemons_that_never_saw_it(tmp_path: Path) -> None:
    store, pin = Agreed(), given(tmp_path / "given")
    ledger, clock = cast("MetaStore", store), SystemClock()
    await open_authorities(settings(tmp_path / "first", tmp_path / "given"), ledger, clock)
    assert store.values[GIVEN_AUTHORITY] == pin

    with pytest.raises(StartupError, match=WITHOUT.format(pin)):
        await open_authorities(settings(tmp_path / "second"), ledger, clock)
    assert made(tmp_path / "second") == []

    other = given(tmp_path / "other")
    await open_authorities(settings(tmp_path / "first", tmp_path / "other"), ledger, clock)
    assert store.values[GIVEN_AUTHORITY] == other
