"""Where the registry database is: the URL of the settings taken apart, with errors that never repeat a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

PROTON_PORT = 8463
PROTON_TLS_PORT = 9440
_SCHEMES = {"proton": PROTON_PORT, "protons": PROTON_TLS_PORT}


@dataclass(frozen=True, slots=True)
class ProtonUrl:
    """`proton://user:password@host:port/database`; `protons://` is the same over TLS."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    tls: bool

    @property
    def label(self) -> str:
        """What logs and errors call it: without user and password."""
        scheme = "protons" if self.tls else "proton"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.database}"


def is_proton(url: str) -> bool:
    """Whether the URL means Proton, be it right or wrong."""
    return url.partition("://")[0] in _SCHEMES


def parse_proton_url(url: str) -> ProtonUrl:
    """Take the URL apart. Raises ValueError with a sentence that repeats no part of it."""
    if not re.fullmatch(r"[\x21-\x7E]+", url):
        raise ValueError("must be visible ASCII characters: a space in the password is written as %20")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # urlsplit's message repeats what stands between // and /: the password as well.
        raise ValueError(
            "cannot be taken apart: is a / : ? # @ in the password not written as %2F …?"
        ) from None
    if not host:
        raise ValueError("must hold a host, for example proton://user@proton.example:8463/default")
    if parts.query or parts.fragment:
        raise ValueError("takes no options after ? or #: timeouts and TLS are settings of their own")
    database = unquote(parts.path.strip("/")) or "default"
    if not database.replace("_", "a").isalnum() or not database.isascii():
        raise ValueError("the database's name is made of letters, digits and _")
    return ProtonUrl(
        host=host,
        port=port or _SCHEMES[parts.scheme],
        database=database,
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        tls=parts.scheme == "protons",
    )
