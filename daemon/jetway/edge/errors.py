"""What can go wrong on an edge host, as one sentence for the person at the keyboard."""

from __future__ import annotations


class EdgeError(Exception):
    """The command cannot go on; the message says why and what to do. It never holds a secret."""


class NotJoinedError(EdgeError):
    """The folder holds no joined service."""
