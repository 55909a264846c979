"""What proton-driver raises, in the product's words. The cause stays chained for the log.

The driver raises errors of its own and, besides, whatever the socket and its encoders raise. After any of them
its connection is closed.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from proton_driver import errors as driver

from jetway.core.errors import ExhaustedError, OutcomeUnknownError, PortError, RejectedError, UnavailableError

UNKNOWN_STREAM = 60
FINAL_NOT_SUPPORTED = 181
"""What a FINAL on an append stream is answered with."""
_NOT_MIGRATED = frozenset({UNKNOWN_STREAM, 16, 47})
_NO_ACCESS = frozenset({81, 192, 193, 194, 291, 497, 516})
"""Unknown database or user, wrong or missing password, access denied."""
_NO_ROOM = frozenset({241, 243})
"""Memory limit, disk space."""
PASSING = _NO_ROOM | frozenset({159, 202, 209, 210, 242})
"""What a later attempt may not meet: no room, time over, too many at once, the network, read-only for now."""
_ABOUT_THE_VALUES = frozenset({6, 27, 38, 41, 53, 69, 70, 72, 131, 321, 349})
"""Values that cannot be parsed or converted, are too large, or null where null is not allowed."""
_BY_THE_ENCODERS = (
    driver.TypeMismatchError,
    AttributeError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    OverflowError,
    struct.error,
)
_LONGEST_REASON = 300


class Stage(IntEnum):
    """How far an INSERT got."""

    NOTHING_SENT = 0
    SENDING = 1
    """Rows are on their way. A block that is cut off is not stored."""
    SENT = 2
    """The server has the whole block: it may have stored it."""


def server_code(error: BaseException) -> int | None:
    """The server's own code of a translated error; None where it was not the server that refused."""
    cause = error.__cause__
    return cause.code if isinstance(cause, driver.ServerException) else None


def translate(
    label: str, error: Exception, stage: Stage = Stage.NOTHING_SENT, *, seconds: float = 0.0
) -> PortError:
    """`label` names the database, `seconds` is how long it was waited for. Reads never leave `NOTHING_SENT`."""
    if isinstance(error, driver.ServerException):
        return _refused(label, error, stage)
    reason = _reason(error)
    if isinstance(error, (TimeoutError, driver.SocketTimeoutError)):
        # Their own text is an address at best.
        reason = f"no answer within {seconds:.0f} s"
    if isinstance(error, _BY_THE_ENCODERS) and not isinstance(error, OSError):
        if stage is Stage.SENDING:
            return RejectedError(f"the database {label} cannot be given these rows: {reason}")
        if stage is Stage.NOTHING_SENT:
            return PortError(f"the database {label} gave an answer that cannot be read: {reason}")
    if stage is Stage.NOTHING_SENT:
        return UnavailableError(f"the database {label} does not answer: {reason}")
    return OutcomeUnknownError(f"the database {label} was lost while it was storing: {reason}")


def _refused(label: str, error: driver.ServerException, stage: Stage) -> PortError:
    """The server itself said no."""
    said = f"{_reason(error)} (code {error.code})"
    if error.code in _ABOUT_THE_VALUES:
        return RejectedError(f"the database {label} refused what it was given: {said}")
    if error.code in _NO_ACCESS:
        return UnavailableError(f"the database {label} lets us not in: {said}")
    if error.code in _NO_ROOM and stage is Stage.NOTHING_SENT:
        return ExhaustedError(f"the database {label} has no room: {said}")
    if error.code in _NOT_MIGRATED:
        return UnavailableError(f"the database {label} has not been migrated: run jetway migrate ({said})")
    if stage is Stage.NOTHING_SENT:
        return UnavailableError(f"the database {label} refused: {said}")
    return OutcomeUnknownError(f"the database {label} failed while it was storing: {said}")


def _reason(error: Exception) -> str:
    """The first line, and no stack of the server's."""
    text = error.message if isinstance(error, driver.Error) and error.message else str(error)
    line = (text.strip() or type(error).__name__).splitlines()[0].removeprefix("DB::Exception: ")
    return line[:_LONGEST_REASON]
