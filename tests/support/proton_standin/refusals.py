"""What a statement is refused with: Proton's error codes, as far as the stand-in gives them."""

from __future__ import annotations

UNKNOWN_FUNCTION = 46
NOT_IMPLEMENTED = 48
UNKNOWN_TYPE = 50
UNKNOWN_STREAM = 60
SYNTAX_ERROR = 62
UNKNOWN_DATABASE = 81
ILLEGAL_FINAL = 181
NO_SUCH_COLUMN = 16
MISSING_KEY = 36
UNEXPECTED_END = 1002
AUTHENTICATION_FAILED = 516


class Refused(Exception):
    """The server answers the statement with this code and text, and the connection goes on."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def not_modelled(what: str) -> Refused:
    """Proton may well know it; the stand-in does not, and says so rather than guess."""
    return Refused(NOT_IMPLEMENTED, f"the stand-in for Proton does not model {what}")
