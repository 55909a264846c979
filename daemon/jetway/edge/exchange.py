"""One HTTP request and its answer, over the standard library alone.

No proxy, no redirect (either could carry a token to somewhere else), bounded in time and in size.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

_CHUNK = 64 * 1024
OK = 200
PROBLEM_ERRORS_SHOWN = 20


class ExchangeError(Exception):
    """No answer came. The message names the address and the reason."""


class RefusedConnectionError(ExchangeError):
    """Nobody listens at the address."""


class UntrustedError(ExchangeError):
    """The server's certificate could not be verified: trying again does not help."""


class BadAddressError(ExchangeError):
    """The URL is not one to send requests to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def loopback(self) -> bool:
        """Whether only this machine can be reached there."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """The address for people, with nothing secret in it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_url(url: str) -> Endpoint:
    """An http(s) URL without user, query or fragment. Raises BadAddressError."""
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadAddressError(f"not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadAddressError("an address begins with http:// or https:// and names a host")
    if parts.username or parts.password or parts.query or parts.fragment or not url.isascii():
        raise BadAddressError("an address holds no user, password, query or fragment")
    if any(character <= " " for character in url):
        raise BadAddressError("an address holds no spaces or control characters")
    default = 443 if parts.scheme == "https" else 80
    return Endpoint(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))


def send(
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    limit: int,
    context: ssl.SSLContext | None = None,
    sink: Callable[[bytes], object] | None = None,
) -> Answer:
    """Send one request and read its answer whole, at most `limit` bytes of it. Raises ExchangeError.

    `context` says whom to trust with https; without one it is whom the system trusts. With a `sink` the body of a
    success goes there piece by piece, without bounds in size, and `timeout` holds for every piece.
    """
    connection = _connection(endpoint, timeout, context)
    deadline = time.monotonic() + timeout
    try:
        connection.request(method, endpoint.path + path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        if sink is not None and response.status == OK:
            while piece := response.read1(_CHUNK):
                sink(piece)
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return Answer(response.status, received, b"")
        return Answer(response.status, received, _read(response, limit, deadline, endpoint))
    except ssl.SSLCertVerificationError as error:
        advice = "" if context else "; a private authority's certificate can be named in SSL_CERT_FILE"
        raise UntrustedError(
            f"{endpoint.url}: its certificate cannot be verified ({error.verify_message}){advice}"
        ) from error
    except ConnectionRefusedError as error:
        raise RefusedConnectionError(f"{endpoint.url}: nobody listens there") from error
    except TimeoutError as error:
        raise ExchangeError(f"{endpoint.url}: no answer within {timeout:g} s") from error
    except OSError as error:
        raise ExchangeError(f"{endpoint.url}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise ExchangeError(f"{endpoint.url}: this is no host's name") from error
    except http.client.HTTPException as error:
        raise ExchangeError(f"{endpoint.url}: the answer broke off ({type(error).__name__})") from error
    finally:
        connection.close()


def trust_root(root_pem: str) -> ssl.SSLContext:
    """Trust a server whose certificate names the host and comes from this root alone. Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A common name that looks like a host's is no promise of an authority that also names services.
    context.hostname_checks_common_name = False
    _load(context, root_pem)
    return context


def trust_certificate(pem: str) -> ssl.SSLContext:
    """Trust the one server that has this very certificate, whatever name it is called by. Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(context, pem)
    return context


def trust_anybody() -> ssl.SSLContext:
    """For what is asked without a secret, and whose answer is checked by other means."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _load(context: ssl.SSLContext, pem: str) -> None:
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, TypeError) as error:
        raise ValueError("not a certificate in PEM form") from error


def _connection(
    endpoint: Endpoint, timeout: float, context: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    if endpoint.scheme == "https":
        context = context or ssl.create_default_context()
        return http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=timeout, context=context)
    return http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)


def _read(response: http.client.HTTPResponse, limit: int, deadline: float, endpoint: Endpoint) -> bytes:
    """The body. The deadline holds for all of it, however slowly it drips."""
    parts: list[bytes] = []
    size = 0
    while chunk := response.read1(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            raise ExchangeError(f"{endpoint.url}: the answer is larger than {limit} bytes")
        if time.monotonic() > deadline:
            raise ExchangeError(f"{endpoint.url}: the answer took too long")
    expected = response.headers.get("Content-Length")
    if expected is not None and expected.isdigit() and size < int(expected):
        raise ExchangeError(f"{endpoint.url}: the answer broke off")
    return b"".join(parts)


def explain(answer: Answer) -> str:
    """A problem document as one sentence, field errors after it; else what the status means."""
    fallback = f"the answer was {answer.status} {http.client.responses.get(answer.status, '')}".rstrip()
    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        return fallback
    if not isinstance(problem, dict):
        return fallback
    sentence = problem.get("detail") or problem.get("title") or fallback
    listed = problem.get("errors")
    errors = [text for text in map(_field_error, listed) if text] if isinstance(listed, list) else []
    # What the sentence says already is not said again; where it is one field's message, the field comes with it.
    named = [text for text in errors if text.endswith(f": {sentence}")]
    more = [text for text in errors if text not in str(sentence) and text not in named]
    return plain("; ".join([*(named or [str(sentence)]), *more][: PROBLEM_ERRORS_SHOWN + 1]))


def _field_error(item: object) -> str:
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        return ""
    where = item.get("field") or item.get("name") or item.get("pointer") or item.get("loc") or ""
    if isinstance(where, list):
        where = ".".join(map(str, where))
    what = item.get("detail") or item.get("message") or item.get("msg") or item.get("reason") or ""
    return f"{where}: {what}" if where and what else str(where or what)


def plain(text: str) -> str:
    """Text from elsewhere, safe to print: no control characters, one line."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
