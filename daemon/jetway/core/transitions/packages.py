"""What becomes of packages when a service changes."""

from __future__ import annotations

from dataclasses import replace

from jetway.core import commands as c
from jetway.core.record import (
    EARLIER_PACKAGES_KEPT,
    LIVE_PACKAGE,
    Package,
    PackageStatus,
    ServiceRecord,
)
from jetway.core.times import to_milliseconds


def new_package(new: c.NewPackage, generation: int, context: c.Context) -> Package:
    """A package with its token still out."""
    return Package(
        package_id=new.package_id,
        generation=generation,
        status=PackageStatus.ISSUED,
        token_expires_at=to_milliseconds(new.token_expires_at),
        created_by=context.actor,
        created_at=to_milliseconds(context.now),
        notes=new.notes,
        watch=new.watch,
    )


def last_generation(record: ServiceRecord) -> int:
    """The highest generation that the service had so far; 0 for none."""
    packages = (record.package, *record.earlier_packages)
    return max((p.generation for p in packages if p), default=0)


def packages_before(record: ServiceRecord) -> tuple[Package, ...]:
    """The packages that a new one leaves behind, the newest first; a live one is superseded by it."""
    if record.package is None:
        return record.earlier_packages
    last = record.package
    if last.status in LIVE_PACKAGE:
        last = replace(last, status=PackageStatus.SUPERSEDED)
    return (last, *record.earlier_packages)[:EARLIER_PACKAGES_KEPT]


def end_package(record: ServiceRecord, status: PackageStatus, context: c.Context) -> Package | None:
    """The current package, ended with `status` if it was still live. One that was in use cannot expire."""
    package = record.package
    if package is None or package.status not in LIVE_PACKAGE:
        return package
    if package.status is PackageStatus.ACTIVATED:
        status = PackageStatus.REVOKED
    revoked_at = to_milliseconds(context.now) if status is PackageStatus.REVOKED else package.revoked_at
    return replace(package, status=status, revoked_at=revoked_at)
