"""A package's own trail: all that ever happened to it, read from the log."""

from __future__ import annotations

import falcon

from adapters.history import History, trail
from adapters.http.exchange import Queries, answer_json, caller_of
from adapters.http.paging import Paging
from adapters.people import People
from adapters.tokens import Scope
from domain.errors import PackageNotFound
from domain.package import Package
from projections.representation import represent_happened, segment


class EventsOfPackage:
    """`/v3/packages/:guid/events`: also of a package that was deleted."""

    scopes = {"GET": Scope.READ}

    def __init__(self, queries: Queries, history: History, people: People) -> None:
        self._queries = queries
        self._history = history
        self._people = people

    def on_get(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        paging = Paging.of_query(req.query_string)
        events = trail(self._history, Package, guid)
        if not events:
            raise PackageNotFound(guid)
        first = events[0].event
        assert isinstance(first, Package.Created | Package.CopyStarted)
        self._queries.guard.see_trail(caller_of(req), guid, first.app_guid)
        start = (paging.page - 1) * paging.per_page
        shown = events[start : start + paging.per_page]
        names = self._people.find_all({logged.event.actor for logged in shown})
        resources = [represent_happened(logged, names) for logged in shown]
        path = f"/v3/packages/{segment(guid)}/events"
        answer_json(resp, paging.render(path, len(events), resources))
