"""Signs and reads package tokens. What a token says and how it is spelled stands in `core.tokens`."""

from __future__ import annotations

import hmac
from dataclasses import replace

from cryptography.exceptions import InvalidSignature

from jetway.adapters.authority.keys import TokenKeys
from jetway.core.errors import Code, PortError, RefusedError, refuse
from jetway.core.tokens import MAX_LENGTH, Claims, encode64, join_token, signing_input, split_token


class TokenAuthority:
    """Implements `ports.Authority`. Signing and reading take well under a millisecond and do no I/O."""

    def __init__(self, keys: TokenKeys) -> None:
        self._keys = keys
        self._public_key = keys.signing.public_key()
        self.key_id = keys.key_id
        """Names the signing key in logs."""

    def issue_token(self, claims: Claims) -> str:
        """The token. The same claims give the same text; a secret in `claims` is replaced by the right one.

        Raises PortError when the text would be longer than a reader accepts.
        """
        signed = signing_input(replace(claims, secret=self._secret(claims)))
        token = join_token(signed, self._keys.signing.sign(signed))
        if len(token) > MAX_LENGTH:
            raise PortError(f"http.public_url is too long: a token would exceed {MAX_LENGTH} characters")
        return token

    def read_token(self, token: str) -> Claims:
        """The claims of a token that this gateway signed; whether it has expired is not judged here.

        Raises RefusedError: `token_malformed` for what is not a token, `token_unknown` for what is not ours.
        """
        parts = split_token(token)
        try:
            self._public_key.verify(parts.signature, parts.signed)
        except InvalidSignature:
            raise _unknown() from None
        # Signed, but under another secret: one of the two key files was exchanged.
        if not hmac.compare_digest(parts.claims.secret.encode(), self._secret(parts.claims).encode()):
            raise _unknown()
        return parts.claims

    def _secret(self, claims: Claims) -> str:
        message = f"{claims.package_id}|{claims.generation}".encode()
        return encode64(hmac.digest(self._keys.secret, message, "sha256"))


def _unknown() -> RefusedError:
    return refuse(Code.TOKEN_UNKNOWN, "this gateway did not issue this token", "token")
