"""What fields of a form suggest: the sites and labels that are in use, the most frequent first."""

from __future__ import annotations

from jetway.services.catalogue import Catalogue

SHOWN = 50


async def sites(catalogue: Catalogue, text: str = "") -> list[str]:
    """Sites that contain `text`."""
    found, _ = await catalogue.sites(text, SHOWN)
    return [site.name for site in found]


async def labels(catalogue: Catalogue, text: str = "") -> list[str]:
    """`key=value`; in `text` a part of the key stands before the `=`, a part of the value behind it."""
    name, _, value = text.partition("=")
    found, _ = await catalogue.labels(name.strip(), SHOWN)
    wanted = value.strip().casefold()
    pairs = [
        (-each.count, f"{label.name}={each.name}")
        for label in found
        for each in label.values
        if wanted in each.name.casefold()
    ]
    return [pair for _, pair in sorted(pairs)[:SHOWN]]
