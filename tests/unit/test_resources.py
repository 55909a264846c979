from __future__ import annotations

from pathlib import Path

import pytest

from jetway import resources
from jetway.resources import resource_dir


def _package(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = root / "daemon" / "jetway"
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    return package


def test_the_folders_of_this_installation_are_found() -> None:
    assert resource_dir("migrations").is_dir()
    assert resource_dir("config").is_dir()


def test_a_checkout_is_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "config").mkdir()
    assert resource_dir("config") == tmp_path / "config"


def test_what_came_with_the_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = _package(tmp_path, monkeypatch)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "config").mkdir()
    (package / "_data" / "config").mkdir(parents=True)
    assert resource_dir("config") == package / "_data" / "config"


def test_a_stranger_s_folder_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch)
    (tmp_path / "config").mkdir()
    with pytest.raises(FileNotFoundError):
        resource_dir("config")


def test_a_missing_folder_is_named_with_the_places_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _package(tmp_path, monkeypatch)
    with pytest.raises(FileNotFoundError, match="'config'") as caught:
        resource_dir("config")
    assert str(package / "_data" / "config") in str(caught.value)
