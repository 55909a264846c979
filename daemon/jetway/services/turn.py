"""One at a time: what compares or rewrites everything that is derived never runs beside another of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jetway.core.errors import Code, refuse


class Turn:
    """Whose turn it is. `leads` tells whether this daemon is the one that writes what is derived."""

    def __init__(self) -> None:
        self.leads: Callable[[], bool] = lambda: True
        self.holder = ""

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        """Hold it while the block runs. Raises RefusedError where another does, or another daemon leads."""
        self.claim(name)
        try:
            yield
        finally:
            self.holder = ""

    def claim(self, name: str) -> None:
        """Raise RefusedError, or hold it until `holder` is emptied."""
        if not self.leads():
            raise refuse(Code.NOT_LEADING, f"another daemon leads: ask that one to {name}")
        if self.holder:
            raise refuse(Code.ALREADY_RUNNING, f"a {self.holder} is running: try again when it is done")
        self.holder = name
