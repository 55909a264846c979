"""`jetway join`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from jetway.cli.errors import CommandError
from jetway.cli.options import DirOption, seconds

_LONGEST = 16 * 1024


def join(
    folder: DirOption,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Read the token from this file.", show_default=False)
    ] = None,
    hostname: Annotated[
        str, typer.Option("--hostname", help="How this host shows itself.", show_default="the system's name")
    ] = "",
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Let the token cross a network unencrypted.")
    ] = False,
    retry_for: Annotated[
        int,
        typer.Option(
            "--retry-for", parser=seconds, metavar="TIME", help="How long to try while the gateway is away."
        ),
    ] = 300,
) -> None:
    """Redeem a token on the edge host and write what the service needs into DIR.

    The token is asked for without echo, or comes from standard input, --token-file or JETWAY_JOIN_TOKEN. It
    is never taken from the command line, where every user of the host could see it. Safe to run again.
    """
    token = read_token(token_file)

    from jetway.edge.errors import EdgeError
    from jetway.edge.join import JoinOptions
    from jetway.edge.join import join as redeem

    options = JoinOptions(
        folder=folder.absolute(),
        hostname=hostname,
        allow_plain_http=allow_plain_http,
        retry_for=float(retry_for),
    )
    try:
        outcome = redeem(token, options, lambda text: typer.echo(text, err=True))
    except EdgeError as error:
        raise CommandError(str(error)) from error
    typer.echo(f"{'already joined' if outcome.already else 'joined'} as {outcome.joined.name}")
    if outcome.backup is not None:
        typer.echo(f"the files of the service before are in {outcome.backup}")
    if not outcome.already:
        typer.echo(f"start it: jetway run --dir {folder}")


def read_token(token_file: Path | None) -> str:
    """The token, from wherever it may come. Raises CommandError."""
    if token_file is not None:
        try:
            with token_file.open(encoding="utf-8") as stream:
                token = stream.read(_LONGEST)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(
                f"cannot read {token_file}: {getattr(error, 'strerror', 'not text')}"
            ) from error
    elif os.environ.get("JETWAY_JOIN_TOKEN"):
        token = os.environ["JETWAY_JOIN_TOKEN"]
    elif sys.stdin.isatty():
        from getpass import getpass

        token = getpass("Token: ")
    else:
        token = sys.stdin.read(_LONGEST)
    if not token.strip():
        raise CommandError(
            "no token was given: type it, pipe it in, or use --token-file or JETWAY_JOIN_TOKEN"
        )
    return token.strip()
