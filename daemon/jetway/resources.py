"""Where the files that are not code live: migrations, the sample configuration and the checker templates.

A wheel carries them inside the package, under `_data`. In a checkout they stand at the top, where people look
for them, and an editable install uses them there, so that an edit counts at once.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """Return the folder of shipped files called `name`, such as `migrations` or `config`.

    Raises `FileNotFoundError`, naming the places that were searched, where the installation is incomplete.
    """
    candidates = _candidates(name, _PACKAGE)
    for folder in candidates:
        if folder.is_dir():
            return folder
    searched = ", ".join(str(folder) for folder in candidates)
    raise FileNotFoundError(
        f"no folder {name!r} came with this installation of edge-jetway (searched: {searched})"
    )


def _candidates(name: str, package: Path) -> list[Path]:
    """Return the places of a resource, best first: the installed one, then that of a checkout."""
    places = [package / "_data" / name]
    checkout = package.parent.parent
    # Without this check an installed package would pick up any folder of that name two levels above it.
    if package.parent.name == "daemon" and (checkout / "pyproject.toml").is_file():
        places.append(checkout / name)
    return places
