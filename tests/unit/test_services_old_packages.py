"""Old packages stay readable, also those that are too old for the record to carry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.core.record import EARLIER_PACKAGES_KEPT, PackageStatus
from jetway.core.rows import package_of, package_rows, service_of
from jetway.services.catalogue import PackageFilter
from support.builders import NOW, POLLER, package, record
from support.house import ALICE, House, running_house

REISSUES = EARLIER_PACKAGES_KEPT + 4


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as house:
        yield house


async def reissued_often(house: House) -> list[str]:
    """The ids of all packages, the oldest first."""
    issued = await house.create(notes="the first")
    ids = [issued.package.package_id]
    for _ in range(REISSUES):
        house.clock.advance(60)
        ids.append((await house.issuer.reissue(ALICE, ids[-1])).package.package_id)
    await house.settle()
    return ids


async def test_the_oldest_of_many_packages_can_still_be_read(house: House) -> None:
    ids = await reissued_often(house)
    assert house.record(POLLER).find_package(ids[0]) is None
    for number, package_id in enumerate(ids, 1):
        view = await house.catalogue.find_package(package_id)
        assert (view.record.key, view.package.package_id) == (POLLER, package_id)
        assert view.package.generation == number
    oldest = (await house.catalogue.find_package(ids[0])).package
    assert (oldest.status, oldest.notes, oldest.created_at) == (PackageStatus.SUPERSEDED, "the first", NOW)
    assert (await house.catalogue.packages(PackageFilter())).total == EARLIER_PACKAGES_KEPT + 1


async def test_while_the_database_is_away_only_the_oldest_cannot_be_read(house: House) -> None:
    ids = await reissued_often(house)
    assert await house.catalogue.find_package(ids[-1])
    house.database.fail_next("load_packages", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.catalogue.find_package(ids[0])


async def test_what_was_deleted_or_never_was_is_not_found(house: House) -> None:
    ids = await reissued_often(house)
    gone = house.database.packages[ids[0]]
    house.database.packages[ids[0]] = replace(gone, deleted_at=NOW)
    for package_id in (ids[0], "00000000-0000-4000-8000-00000000ffff"):
        with pytest.raises(RefusedError) as refused:
            await house.catalogue.find_package(package_id)
        assert refused.value.refused.code is Code.NOT_FOUND


def test_a_row_tells_its_package() -> None:
    made = record(package=package())
    (row,) = package_rows(made)
    assert package_of(row) == made.package
    assert service_of(row) == made.key
