"""Style, scripts and icon: read once, served under an address that changes with their content.

A module names others by their file (`import … from "./page.js"`). Such a name is given its version here, so a
module's own version changes with whatever it imports, and all of them can be kept for ever.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

_FOLDER = Path(__file__).resolve().parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOREVER = "public, max-age=31536000, immutable"
_IMPORT = re.compile(r"""(\b(?:from|import) ")\./([\w-]+\.js)(")""")


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    content_type: str
    version: str


class Assets:
    """The files in a folder, by default `static`."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        """Raises ValueError for modules that import each other in a ring, KeyError for one that is not there."""
        paths = {path.name: path for path in sorted(folder.iterdir()) if path.suffix in _TYPES}
        self._assets: dict[str, _Asset] = {}
        for name in paths:
            self._read(name, paths, ())

    def url(self, name: str) -> str:
        """Where a page finds it. Raises KeyError for a file that is not there."""
        return f"/ui/static/{name}?v={self._assets[name].version}"

    async def show(self, request: web.Request) -> web.Response:
        """GET /ui/static/{name}."""
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        cache = _FOREVER if request.query.get("v") == asset.version else "no-cache"
        return web.Response(
            body=asset.body,
            content_type=asset.content_type,
            charset="utf-8",
            headers={"Cache-Control": cache},
        )

    def _read(self, name: str, paths: dict[str, Path], importers: tuple[str, ...]) -> _Asset:
        if name in importers:
            raise ValueError(f"modules import each other: {' → '.join((*importers, name))}")
        if name not in self._assets:
            path = paths[name]
            body = path.read_bytes()
            if path.suffix == ".js":
                body = self._with_versions(body.decode(), paths, (*importers, name)).encode()
            version = hashlib.sha256(body).hexdigest()[:12]
            self._assets[name] = _Asset(body, _TYPES[path.suffix], version)
        return self._assets[name]

    def _with_versions(self, text: str, paths: dict[str, Path], importers: tuple[str, ...]) -> str:
        def versioned(found: re.Match[str]) -> str:
            asset = self._read(found[2], paths, importers)
            return f"{found[1]}./{found[2]}?v={asset.version}{found[3]}"

        return _IMPORT.sub(versioned, text)
