"""What goes wrong, when, and how often: decided by the test, done by the server."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["drop", "error", "slow", "half_block"]
Moment = Literal["before", "after"]


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong with the statements that match.

    `moment` says whether it happens before the statement is executed or after, when an INSERT is applied
    and only the answer is missing. `times` counts down; below zero it never ends. `skip` statements that
    match pass first.
    """

    kind: Kind
    matching: str = ""
    """A regular expression, searched in the statement in whatever case."""
    moment: Moment = "before"
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    code: int = 0
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        """As it goes to the server."""
        return asdict(self)


class Faults:
    """The server's list of what is to go wrong."""

    def __init__(self) -> None:
        self.fired = 0
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """From now on, after those before it."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()

    def strike(self, sql: str) -> Fault | None:
        """The fault that hits this statement, if one does."""
        for fault in self._faults:
            if not fault.times or not re.search(fault.matching, sql, re.IGNORECASE):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            self.fired += 1
            return fault
        return None
