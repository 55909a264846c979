"""Encryption at rest: what is sealed opens where it belongs; a wrong or missing key is refused at the start."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetway.adapters.authority.vault import (
    CREDENTIAL,
    AesVault,
    VaultFile,
    VaultKeys,
    find_vault,
    key_id,
    new_key,
)
from jetway.core.errors import PortError, StartupError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def keys(*given_keys: bytes) -> VaultKeys:
    return VaultKeys({key_id(key): key for key in given_keys})


def vault(*given_keys: bytes) -> AesVault:
    return AesVault(keys(*given_keys), key_id(given_keys[-1]))


@given(st.binary(max_size=200), st.text(max_size=40))
def test_what_is_sealed_opens_in_its_context_alone(secret: bytes, context: str) -> None:
    sealed = vault(OLD).seal(secret, context=context)
    assert vault(OLD).open(sealed, context=context) == secret
    with pytest.raises(PortError, match="belongs elsewhere"):
        vault(OLD).open(sealed, context=context + "x")


def test_the_same_secret_never_looks_the_same() -> None:
    one = vault(OLD)
    texts = {one.seal(b"secret", context="c") for _ in range(50)}
    assert len(texts) == 50
    assert all(text.startswith(f"v1.{key_id(OLD)}.") and "secret" not in text for text in texts)


def test_the_newest_key_writes_and_all_read() -> None:
    before = vault(OLD).seal(b"secret", context="c")
    both = vault(OLD, NEW)
    assert both.open(before, context="c") == b"secret"
    assert not both.is_current(before)
    after = both.seal(b"secret", context="c")
    assert both.is_current(after)
    assert vault(NEW).open(after, context="c") == b"secret"
    with pytest.raises(PortError, match=key_id(OLD)):
        vault(NEW).open(before, context="c")


def test_a_key_cannot_be_passed_off_as_another() -> None:
    sealed = vault(OLD).seal(b"secret", context="c").replace(key_id(OLD), key_id(NEW))
    with pytest.raises(PortError):
        vault(OLD, NEW).open(sealed, context="c")


@pytest.mark.parametrize("position", [-1, -10, 30])
def test_an_altered_text_does_not_open(position: int) -> None:
    sealed = list(vault(OLD).seal(b"a longer secret than that", context="c"))
    sealed[position] = "A" if sealed[position] != "A" else "B"
    with pytest.raises(PortError):
        vault(OLD).open("".join(sealed), context="c")


@given(st.text(max_size=80))
def test_whatever_is_no_sealed_secret_is_an_error_and_nothing_worse(text: str) -> None:
    for sealed in (text, f"v1.{key_id(OLD)}.{text}"):
        with pytest.raises(PortError):
            vault(OLD).open(sealed, context="c")


def test_keys_do_not_show() -> None:
    assert "\\x01" not in repr(keys(OLD))
    assert OLD.hex() not in repr(vars(vault(OLD))["current"])
    assert key_id(OLD) != key_id(NEW)


# --- the file


@pytest.fixture
def file(tmp_path: Path) -> VaultFile:
    return find_vault(tmp_path, None, {})


def test_a_key_is_made_at_the_first_start_and_kept(file: VaultFile) -> None:
    first = file.open(None)
    assert (file.path.stat().st_mode & 0o777, file.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.open(first.current).current == first.current
    sealed = first.seal(b"secret", context="c")
    assert file.open(None).open(sealed, context="c") == b"secret", "before the ledger remembers it"


def test_a_missing_key_is_never_made_anew(file: VaultFile) -> None:
    standing = file.open(None).current
    file.path.unlink()
    with pytest.raises(StartupError, match=r"vault\.keys is missing"):
        file.open(standing)
    assert not file.path.exists()


def test_another_key_is_refused_by_name(file: VaultFile) -> None:
    file.path.parent.mkdir(mode=0o700)
    file.write([OLD])
    with pytest.raises(StartupError, match=f"sealed with the key {key_id(NEW)}, the file has {key_id(OLD)}"):
        file.open(key_id(NEW))


def test_the_ledger_says_which_key_writes(file: VaultFile) -> None:
    file.path.parent.mkdir(mode=0o700)
    file.write([OLD, NEW])
    assert file.open(key_id(OLD)).current == key_id(OLD)
    assert file.open(key_id(NEW)).current == key_id(NEW)
    assert file.open(None).current == key_id(NEW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "has no key"),
        (b"# only a comment\n\n", "has no key"),
        (base64.b64encode(OLD) + b"\nnot base64!\n", "line 2: is not a key"),
        (base64.b64encode(OLD[:31]), "line 1: is not a key"),
        (b"\xff\xfe", "line 1: is not a key"),
    ],
)
def test_a_damaged_file_is_named_with_its_line_and_not_quoted(file: VaultFile, text: bytes, why: str) -> None:
    file.path.parent.mkdir(mode=0o700)
    file.path.touch(mode=0o600)
    file.path.write_bytes(text)
    with pytest.raises(StartupError, match=why) as caught:
        file.open(None)
    assert str(file.path) in str(caught.value)
    assert "not base64" not in str(caught.value)


def test_a_file_open_to_others_is_refused(file: VaultFile) -> None:
    file.open(None)
    file.path.chmod(0o640)
    with pytest.raises(StartupError, match="open to other users"):
        file.open(None)
    file.path.chmod(0o600)
    file.path.parent.chmod(0o770)
    with pytest.raises(StartupError, match="chmod 700"):
        file.open(None)


def test_comments_and_empty_lines_are_passed_over(file: VaultFile) -> None:
    file.path.parent.mkdir(mode=0o700)
    file.write([OLD])
    file.path.write_bytes(
        b"# of March\n\n" + base64.b64encode(OLD) + b"\n# of April\n" + base64.b64encode(NEW)
    )
    assert file.read().ids == (key_id(OLD), key_id(NEW))


def test_the_setting_comes_before_the_credential_before_the_own_file(tmp_path: Path) -> None:
    credentials, given = tmp_path / "credentials", tmp_path / "given.keys"
    credentials.mkdir()
    environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    own = find_vault(tmp_path, None, environment)
    assert (own.path, own.own) == (tmp_path / "keys" / "vault.keys", True)
    (credentials / CREDENTIAL).write_bytes(base64.b64encode(OLD))
    loaded = find_vault(tmp_path, None, environment)
    assert (loaded.path, loaded.own) == (credentials / CREDENTIAL, False)
    assert loaded.open(None).current == key_id(OLD)
    assert find_vault(tmp_path, given, environment) == VaultFile(given, own=False)


def test_a_given_file_that_is_missing_is_not_made(tmp_path: Path) -> None:
    given = VaultFile(tmp_path / "given.keys", own=False)
    with pytest.raises(StartupError, match=r"vault\.key_file: .*given\.keys is missing"):
        given.open(None)
    assert not given.path.exists()


def test_a_directory_in_its_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot read the key"):
        VaultFile(tmp_path, own=False).open(None)


def test_new_keys_differ() -> None:
    assert len({new_key() for _ in range(20)}) == 20
