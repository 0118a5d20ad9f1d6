"""Who did what: Cloud Foundry's audit events, a list of them, and one.

Source of their shape, and of what can be asked for:
https://v3-apidocs.cloudfoundry.org (Audit Events).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import falcon

from adapters.http.exchange import Queries, answer_json, caller_of
from adapters.http.faults import AuditEventNotFound, BadQuery
from adapters.http.paging import Paging, sign_order, values_of
from adapters.moments import Moment, moment_told
from adapters.people import People
from adapters.tokens import Scope
from projections.audit_entries import APP, USER
from projections.audit_list import AuditQuery, Visible
from projections.representation import AuditView, represent_audit_event

TIMES = "created_ats"
MAX_TIMES = 100  # that are asked for one by one
BOUNDS = tuple(f"{TIMES}[{name}]" for name in ("gt", "gte", "lt", "lte"))
LISTS = ("types", "target_guids", "target_guids[not]", "space_guids", "organization_guids")
FILTERS = (*LISTS, TIMES, *BOUNDS, "order_by")


class AuditEvents:
    """`/v3/audit_events`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries, people: People) -> None:
        self._queries = queries
        self._people = people

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        paging = Paging.of_query(req.query_string, FILTERS, check_filters)
        audit = self._queries.ask().audit
        targets = paging.values("target_guids")
        among = None if targets is None else partial(audit.apps_about, targets)
        seen = self._queries.guard.events_seen(caller_of(req), among)
        found = audit.page(query_of(paging.filters, seen), paging.page, paging.per_page)
        names = names_in(self._people, found.events)
        resources = [represent_audit_event(view, names) for view in found.events]
        answer_json(resp, paging.render("/v3/audit_events", found.total, resources))


class OneAuditEvent:
    """`/v3/audit_events/:guid`"""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries, people: People) -> None:
        self._queries = queries
        self._people = people

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        audit = self._queries.ask().audit
        view = audit.find(guid)
        if view is None:
            raise AuditEventNotFound(guid)
        app_guid = view.target_guid if view.target_type == APP else None
        seen = self._queries.guard.sees_event(
            caller_of(req), app_guid, lambda places: audit.happened_in(guid, places)
        )
        if not seen:
            raise AuditEventNotFound(guid)
        answer_json(resp, represent_audit_event(view, names_in(self._people, [view])))


def names_in(people: People, views: Iterable[AuditView]) -> dict[str, str]:
    """What users who acted, or were acted on, are called, as far as that is kept."""
    guids = set()
    for view in views:
        guids.add(view.actor)
        if view.target_type == USER:
            guids.add(view.target_guid)
    return people.find_all(guids)


def check_filters(filters: dict[str, str]) -> None:
    """Raises `BadQuery`, with all that is wrong."""
    checks: list[Callable[[], object]] = [partial(sign_order, filters)]
    checks += [partial(values_of, filters, name) for name in LISTS]
    checks += [partial(_moments, filters, name) for name in (TIMES, *BOUNDS)]
    reasons = []
    for check in checks:
        try:
            check()
        except BadQuery as reason:
            reasons.append(str(reason))
    if reasons:
        raise BadQuery(", ".join(reasons))


def query_of(filters: Mapping[str, str], visible: Visible | None) -> AuditQuery:
    """What is asked for by filters that were checked.

    A time lasts as long as it is written: who is shown whole seconds finds what happened
    within such a second, and nothing of it is after that.
    """
    after, at_least, before, at_most = (_moments(filters, name) for name in BOUNDS)
    starts = [moment.span[1] for moment in after or ()]
    starts += [moment.span[0] for moment in at_least or ()]
    ends = [moment.span[0] for moment in before or ()]
    ends += [moment.span[1] for moment in at_most or ()]
    exactly = _moments(filters, TIMES)
    return AuditQuery(
        types=values_of(filters, "types"),
        targets=values_of(filters, "target_guids"),
        other_targets=values_of(filters, "target_guids[not]"),
        spaces=values_of(filters, "space_guids"),
        organizations=values_of(filters, "organization_guids"),
        spans=None if exactly is None else [moment.span for moment in exactly],
        since=max(starts, default=None),
        until=min(ends, default=None),
        descending=filters.get("order_by", "").startswith("-"),
        visible=visible,
    )


def _moments(filters: Mapping[str, str], name: str) -> list[Moment] | None:
    """The times of a filter; None if it is not given. Raises `BadQuery`."""
    given = filters.get(name)
    if given is None:
        return None
    texts = [text for text in given.split(",") if text] if name == TIMES else [given]
    if len(texts) > MAX_TIMES:
        raise BadQuery(f"Created ats must be {MAX_TIMES} times or less")
    found, wrong = [], []
    for text in texts:
        try:
            found.append(moment_told(text))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        must = "be times" if name == TIMES else "be a time"
        label = name.replace("created_ats", "Created ats")
        raise BadQuery(f"{label} must {must}, and {', '.join(wrong)}")
    return found
