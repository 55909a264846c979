"""Whether a form was sent from a page of this gateway and not from somebody else's."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web


def is_same_origin(request: web.Request, public_url: str) -> bool:
    """What the browser says of the page that sent this: `Sec-Fetch-Site`, and where it is absent, `Origin`.

    Browsers leave `Sec-Fetch-Site` out where the address is neither HTTPS nor this machine. A request that says
    neither came from no browser of today, and is refused.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("Origin", ""))
    return bool(origin.netloc) and origin.netloc in (request.host, urlsplit(public_url).netloc)
