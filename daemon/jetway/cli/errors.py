"""How a command fails."""

from __future__ import annotations


class CommandError(Exception):
    """Refused or failed: one clear line for standard error, exit status 1."""
