"""The rows of an import, from another product's Proton."""

from __future__ import annotations

from pathlib import Path

from jetway.cli.errors import CommandError
from jetway.cli.import_rows import Problem, SourceRow
from jetway.cli.local import startup_errors


def read_streams(url_file: Path, authority: Path | None) -> list[SourceRow]:
    """The rows of its streams. `url_file` holds `proton://user:password@host:8463/database`.

    Raises CommandError, in which neither the URL nor its password stands.
    """
    from jetway.adapters.database.proton_client import Target, verifying_context
    from jetway.adapters.database.proton_import import read_services
    from jetway.database_url import is_proton, parse_proton_url

    try:
        text = url_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandError(f"--proton-url-file: {url_file} cannot be read: {reason}") from None
    if not is_proton(text):
        raise CommandError(f"--proton-url-file: {url_file} must hold proton://… or protons://…")
    try:
        url = parse_proton_url(text)
    except ValueError as error:
        raise CommandError(f"--proton-url-file: the URL in {url_file} {error}") from None
    with startup_errors():
        tls = verifying_context(authority) if url.tls else None
        target = Target(url.label, url.host, url.port, url.database, url.user, lambda: url.password, tls)
        return [
            SourceRow(
                f"{service.fields['service_type']}s {service.fields['service_id']}",
                service.fields,
                Problem(service.problem, service.why) if service.problem else None,
            )
            for service in read_services(target)
        ]
