"""The name under which the processes of one state directory hold the lease."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetway.adapters.clock import RandomIdentifiers
from jetway.adapters.holder import HOLDER_FILE, lease_holder


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    first = lease_holder(tmp_path, RandomIdentifiers())
    assert first
    assert lease_holder(tmp_path, RandomIdentifiers()) == first
    assert (tmp_path / HOLDER_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe", b"x" * 1000], ids=repr)
def test_what_is_damaged_is_made_anew(tmp_path: Path, data: bytes) -> None:
    (tmp_path / HOLDER_FILE).write_bytes(data)
    made = lease_holder(tmp_path, RandomIdentifiers())
    assert 10 < len(made) < 100
    assert lease_holder(tmp_path, RandomIdentifiers()) == made


def test_where_it_cannot_be_kept_there_is_one_all_the_same(tmp_path: Path) -> None:
    assert lease_holder(tmp_path / "missing", RandomIdentifiers())
