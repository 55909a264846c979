"""What can go wrong, in the product's own words. Doors turn these into HTTP answers and exit codes.

Adapters translate their library's errors into `PortError`s, chaining the cause; a cause's text is for the log
and never reaches a caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Why a command was refused: stable, and the same in logs, metrics and problem documents."""

    # the command itself
    INVALID = "invalid"
    # what it names
    NOT_FOUND = "not_found"
    TAKEN = "taken"
    PARENT_MISSING = "parent_missing"
    PARENT_NOT_LIVE = "parent_not_live"
    CHILDREN_LIVE = "children_live"
    ILLEGAL_TRANSITION = "illegal_transition"
    # tokens and packages
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - a code, not a password
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    ALREADY_REDEEMED = "already_redeemed"
    # keys and credentials
    KEY_USED_BEFORE = "key_used_before"
    PROOF_INVALID = "proof_invalid"
    PROOF_STALE = "proof_stale"
    TOO_MANY_RENEWALS = "too_many_renewals"
    # heartbeats
    UNKNOWN_SERVICE = "unknown_service"
    WRONG_PARENTS = "wrong_parents"
    NOT_DELIVERED = "not_delivered"
    APPROVAL_REQUIRED = "approval_required"
    REJECTED = "rejected"
    DELETED = "deleted"
    MALFORMED = "malformed"
    # requests
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    VERSION_DIFFERS = "version_differs"
    COUNT_DIFFERS = "count_differs"
    TOO_MANY_FAILURES = "too_many_failures"
    ALREADY_RUNNING = "already_running"
    NOT_LEADING = "not_leading"


@dataclass(frozen=True, slots=True)
class Refused:
    """A decision not to act: a value, not an exception, so that the state tables can return it."""

    code: Code
    why: str
    field: str = ""


class RefusedError(Exception):
    """A refusal on its way to a door. `refused.why` is a sentence that a person can act on."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.why)
        self.refused = refused


def refuse(code: Code, why: str, field: str = "") -> RefusedError:
    """A RefusedError in one call, to be raised."""
    return RefusedError(Refused(code, why, field))


class PortError(Exception):
    """Something outside did not do as asked."""


class ConflictError(PortError):
    """A compare-and-swap lost: somebody else changed the key first. Read again and decide again."""


class UnavailableError(PortError):
    """A dependency is away. Nothing was changed."""


class ExhaustedError(UnavailableError):
    """A dependency lacks room: disk, memory. It may still take what needs none. Nothing was changed."""


class OutcomeUnknownError(UnavailableError):
    """A write may or may not have happened: read back before deciding."""


class RejectedError(PortError):
    """A write was refused for what it contains: trying it again as it is fails again. Nothing was changed.

    The message says why without the values, as the values may be a secret.
    """


class StartupError(Exception):
    """The program cannot start; the message names what to change."""
