"""The text of a NATS `.creds` file, as NATS's own tools write and read it."""

from __future__ import annotations

_JWT = "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n"
_SEED = "-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"


def creds_text(jwt: str, seed: str = "") -> str:
    """The JWT in its armour, and the seed in its own where there is one: who made its key has it already."""
    return _JWT.format(jwt=jwt) + ("\n" + _SEED.format(seed=seed) if seed else "")
