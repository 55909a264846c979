"""Onboarding: a form for each type of service, then one page with the token and what becomes of it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence

from aiohttp import web
from pydantic import ValidationError

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.ids import ServiceKey, ServiceType, is_id
from jetway.entry.http import answers as a
from jetway.entry.http import requests as r
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.packages import body_hash, package_request, warnings
from jetway.entry.http.problems import STATUS, field_errors
from jetway.entry.web import suggestions
from jetway.entry.web.install_ways import is_plain, ways
from jetway.entry.web.onboard_form import LABEL_FIELDS, METADATA_FIELDS, read_form
from jetway.entry.web.pages import page
from jetway.entry.web.services import takes_children
from jetway.entry.web.template_form import Question, questions_of
from jetway.entry.web.visit import Visit
from jetway.services.catalogue import ServiceFilter
from jetway.settings import Settings

_PARENTS_SHOWN = 100
_TERMS = (("3600", "1 hour"), ("86400", "1 day"), ("604800", "7 days"), ("2592000", "30 days"))


class OnboardPages:
    """The pages under /ui/onboard."""

    def __init__(self, doors: Doors, settings: Settings, public_url: str) -> None:
        self._catalogue = doors.catalogue
        self._issuer = doors.issuer
        self._templates = doors.templates
        self._settings = settings
        self._public_url = public_url
        pinned = doors.certificates if settings.pins_own_authority else None
        self._pin = pinned.pin if pinned else ""

    @page("GET", "/ui/onboard", Role.OPERATOR)
    async def ask(self, visit: Visit) -> web.StreamResponse:
        """The form."""
        query = visit.request.query
        given = {name: query.get(name, "") for name in ("parent_id", "site")}
        return await self._form(visit, _kind(query.get("type", "")), query.get("kind", ""), given, {})

    @page("POST", "/ui/onboard", Role.OPERATOR)
    async def create(self, visit: Visit) -> web.StreamResponse:
        """Issue the package, or show the form again with what is wrong."""
        form = visit.form
        kind, checker = _kind(form.get("component_type", "")), form.get("checker_kind", "")
        defaults = a.Defaults.model_validate(await self._templates.defaults())
        values, wrong = read_form(form, _template(defaults, checker))
        body, more = _judged(values)
        wrong = more | wrong
        if body is None or wrong:
            wrong |= self._wrong_parent(kind, values) if "parent_id" not in wrong else {}
            return await self._form(visit, kind, checker, form, wrong, 422)
        try:
            issued = await self._issuer.create(
                visit.caller, package_request(body), _retry_key(form), body_hash(body)
            )
        except RefusedError as error:
            wrong = {error.refused.field: error.refused.why}
            return await self._form(visit, kind, checker, form, wrong, STATUS[error.refused.code])
        package_id = issued.package.package_id
        visit.session.keep_once(package_id, issued.token)
        return visit.go(f"/ui/onboard/{package_id}")

    @page("GET", "/ui/onboard/parents", Role.OPERATOR)
    async def parents(self, visit: Visit) -> web.StreamResponse:
        """Parents that match what is typed, as JSON."""
        kind = _kind(visit.request.query.get("type", ""))
        return web.json_response(await self._parents(kind, visit.request.query.get("q", "")[:200]))

    @page("GET", "/ui/onboard/sites", Role.OPERATOR)
    async def sites(self, visit: Visit) -> web.StreamResponse:
        """Sites that contain what is typed, as JSON."""
        return web.json_response(
            await suggestions.sites(self._catalogue, visit.request.query.get("q", "")[:200])
        )

    @page("GET", "/ui/onboard/labels", Role.OPERATOR)
    async def labels(self, visit: Visit) -> web.StreamResponse:
        """Labels that match what is typed, as JSON."""
        return web.json_response(
            await suggestions.labels(self._catalogue, visit.request.query.get("q", "")[:320])
        )

    @page("GET", "/ui/onboard/{package_id:[0-9a-f-]{36}}")
    async def progress(self, visit: Visit) -> web.StreamResponse:
        """The token, once; the commands; and how far it is."""
        view = await self._catalogue.find_package(visit.part("package_id"))
        token = "" if visit.is_live else visit.session.take_once(view.package.package_id)
        return visit.show(
            "onboarded.html",
            record=view.record,
            package=view.package,
            service=self._catalogue.view(view.record),
            takes_children=takes_children(view.record),
            token=token,
            ways=ways(self._public_url, view.record.service_id, self._pin),
            plain=is_plain(self._public_url),
            warnings=warnings(self._settings, self._public_url),
        )

    async def _form(
        self,
        visit: Visit,
        kind: ServiceType,
        checker: str,
        given: Mapping[str, str],
        wrong: Mapping[str, str],
        status: int = 200,
    ) -> web.StreamResponse:
        defaults = a.Defaults.model_validate(await self._templates.defaults())
        if kind is ServiceType.CHECKER and not checker and defaults.checker_kinds:
            checker = defaults.checker_kinds[0].kind
        return visit.show(
            "onboard.html",
            status,
            kind=kind,
            kinds=list(ServiceType),
            checker=checker,
            defaults=defaults,
            questions=_questions(defaults, checker) if kind is ServiceType.CHECKER else [],
            parents=await self._parents(kind, ""),
            sites=await suggestions.sites(self._catalogue),
            labels=await suggestions.labels(self._catalogue),
            label_fields=LABEL_FIELDS,
            metadata_fields=METADATA_FIELDS[kind],
            given=given,
            wrong=wrong,
            terms=_TERMS,
            retry_key=given.get("retry_key") or str(uuid.uuid4()),
        )

    def _wrong_parent(self, kind: ServiceType, values: Mapping[str, object]) -> dict[str, str]:
        """What a creation would say of the parent, told beside what keeps it from being tried."""
        parent_id = str(values.get("parent_id", ""))
        if kind.parent_type is None or not parent_id or not is_id(parent_id):
            return {}
        if self._catalogue.record(ServiceKey(kind.parent_type, parent_id)) is not None:
            return {}
        return {"parent_id": f"the parent {kind.parent_type.value} {parent_id!r} does not exist"}

    async def _parents(self, kind: ServiceType, text: str) -> list[dict[str, str]]:
        """Whom it may stand under: the first of those that match."""
        if kind.parent_type is None:
            return []
        wanted = ServiceFilter(
            service_type=kind.parent_type,
            statuses=("pending", "active"),
            approvals=("none", "granted"),
            q=text,
            limit=_PARENTS_SHOWN,
        )
        found = (await self._catalogue.services(wanted)).items
        return [{"id": view.record.service_id, "label": view.record.label} for view in found]


def _kind(text: str) -> ServiceType:
    try:
        return ServiceType(text or "poller")
    except ValueError:
        raise refuse(Code.INVALID, "type is one of poller, agent, checker", "type") from None


def _judged(values: Mapping[str, object]) -> tuple[r.CreatePackage | None, dict[str, str]]:
    """The body, or by field what is wrong in it."""
    try:
        return r.CreatePackage.model_validate(values), {}
    except ValidationError as error:
        return None, {each.field.split(".")[0]: each.message for each in field_errors(error)}


def _template(defaults: a.Defaults, checker: str) -> Mapping[str, object]:
    return next((each.template for each in defaults.checker_kinds if each.kind == checker), {})


def _questions(defaults: a.Defaults, checker: str) -> Sequence[Question]:
    return questions_of(_template(defaults, checker))


def _retry_key(form: Mapping[str, str]) -> str:
    """The same for a form that is sent twice: the second gets what the first made.

    It is of this form's content, so that one that was corrected is a new one.
    """
    kept = {name: value for name, value in form.items() if name != "csrf"}
    return "web-" + hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
