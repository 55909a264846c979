"""Templates: everything that goes into a page is escaped, and a name that is not there is a mistake."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jetway.core.times import rfc3339
from jetway.entry.web import words
from jetway.entry.web.assets import Assets

_FOLDER = Path(__file__).resolve().parent / "templates"


class Templating:
    """Renders the files in `templates`."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals |= {"asset": assets.url, "with_query": words.with_query}
        self._environment.filters |= {
            "sentence": words.sentence,
            "worded": words.worded,
            "kind": words.kind,
            "actor": words.actor,
            "countdown": words.countdown,
            "source": words.source,
            "lasting": words.lasting,
            "plain_json": words.plain_json,
            "rfc3339": rfc3339,
            "relative": words.relative,
        }

    def render(self, template: str, now: datetime, values: dict[str, Any]) -> str:
        """A page. `now` is what its times are relative to."""
        return self._environment.get_template(template).render(now=now, **values)
