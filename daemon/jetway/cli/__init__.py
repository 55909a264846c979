"""The command `jetway`: one file a group. Heavy imports happen inside the commands, so that help is quick."""

from __future__ import annotations

import os
import re
import sys

_SECRET = re.compile(r"jw1\.[A-Za-z0-9_-]+\.|jwa_[A-Za-z0-9_-]{16}")


def main() -> None:
    """Run the command line and exit: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run the command line; the exit status."""
    from jetway.cli.errors import CommandError
    from jetway.cli.program import build

    if any(_SECRET.search(argument) for argument in arguments):
        _complain(
            "a token never goes on the command line, where other users and the shell's history see it:"
            " `jetway join` asks for it, or reads standard input, --token-file or JETWAY_JOIN_TOKEN;"
            " an API token goes into JETWAY_TOKEN"
        )
        return 2
    try:
        build()(arguments, prog_name="jetway")
    except SystemExit as finished:
        return _flushed(finished.code if isinstance(finished.code, int) else int(bool(finished.code)))
    except CommandError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _silenced()
    return _flushed(0)


def _complain(text: str) -> None:
    try:
        print(f"jetway: {text}", file=sys.stderr)
    except BrokenPipeError:
        _silenced()


def _flushed(code: int) -> int:
    """The reader of our output may be gone (`jetway service list | head`): then there is nobody to tell."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _silenced()
    return code


def _silenced() -> int:
    """Keep the interpreter from complaining when it flushes at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return 1
