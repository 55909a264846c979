"""Whoever stops the demo while it starts or stops something leaves nothing of it behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jetway.cli import demo

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As the demo has them; afterwards as they were."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in _STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", _STOPPING)
def test_stopped_while_a_process_starts_the_demo_knows_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(["sleep", "600"], start_new_session=True)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    stage = demo.Stage(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stage.start("daemon", "serve")
    ((_, process, _),) = stage.processes
    stage.stop()
    assert process.returncode == -signal.SIGTERM


def test_whoever_presses_ctrl_c_again_does_not_keep_it_from_stopping_everything(tmp_path: Path) -> None:
    class Impatient(subprocess.Popen[bytes]):
        def send_signal(self, sig: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().send_signal(sig)

    stage = demo.Stage(tmp_path)
    processes = [Impatient(["sleep", "600"]) for _ in range(2)]
    stage.processes = [("one", process, tmp_path) for process in processes]
    stage.stop()
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2
