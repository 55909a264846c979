"""/docs: Swagger UI from the installed package's files. No inline script, nothing from elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from aiohttp import web

from jetway.core.errors import StartupError

_STATIC = Path(__file__).resolve().parent / "static"
_FROM_SWAGGER_UI = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CACHE = "public, max-age=3600"


def add_docs(app: web.Application) -> None:
    """Add /docs and its assets. Raises StartupError where the installation lacks them."""
    assets = {name: _swagger_ui_folder() / name for name in _FROM_SWAGGER_UI}
    assets["start.js"] = _STATIC / "docs.js"
    page = _STATIC / "docs.html"
    missing = [str(path) for path in (*assets.values(), page) if not path.is_file()]
    if missing:
        raise StartupError(f"this installation lacks {missing[0]}: install edge-jetway again")

    async def show_page(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(
            page, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        )

    async def show_asset(request: web.Request) -> web.StreamResponse:
        path = assets.get(request.match_info["asset"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={"Cache-Control": _CACHE})

    app.router.add_get("/docs", show_page)
    app.router.add_get("/docs/{asset}", show_asset)


def _swagger_ui_folder() -> Path:
    """Where swagger-ui-py has its assets. It is looked up, not imported: only its files are wanted."""
    found = importlib.util.find_spec("swagger_ui")
    if found is None or not found.submodule_search_locations:
        raise StartupError("swagger-ui-py is not installed: install edge-jetway with its dependencies")
    return Path(found.submodule_search_locations[0]) / "static"
