"""Who may do what, beyond the token's scopes: by nothing else, by roles, or by a Cloud Controller.

What a caller may not see is not there for them: they get the same refusal as for what does
not exist. What they see and may not change is `NotAuthorized`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Protocol
from urllib.parse import quote

from adapters.breaker import Breaker
from adapters.fetching import Fetcher, NoAnswer
from adapters.http.faults import InvalidToken, NotAuthorized, TooManyApps
from adapters.tokens import Caller
from domain.directory import faults_of_name
from domain.errors import AppNotFound, DropletNotFound, PackageNotFound, Refusal
from domain.role import RoleType
from projections.audit_list import Places, Visible
from projections.directory import DirectoryReadModel
from projections.droplets import DropletReadModel
from projections.packages import PackageReadModel
from projections.roles import RoleReadModel
from projections.rows import Selection

TIMEOUT = 2.0  # seconds that a Cloud Controller has
REMEMBERED_FOR = 5.0  # seconds
REMEMBERED = 20_000  # answers
AT_ONCE = 4  # requests to it, of half the worker threads
TURN = 0.2  # seconds that a request waits to be one of them
LIST_PATIENCE = 4.0  # seconds for all apps of one list
MAX_APPS = 200  # that a Cloud Controller is asked about for one request
_LATER = frozenset((408, 429))  # it may answer something else another time
_AWAY = frozenset((502, 503, 504))  # what is said in its place while it is
Among = Callable[[int], Sequence[str]]  # finds guids of apps, up to so many
_NO_SEGMENT = frozenset((".", ".."))  # of a URL: they would make it another route's


class Access(IntEnum):
    """What a caller may do with what is an app's."""

    NONE = 0
    READ = 1
    WRITE = 2


class Authorization(Protocol):
    """What tells who may do what.

    May raise `AuthorizationAway`, `AuthorizationUnclear`, `ReadModelBehind`.
    """

    def unrestricted(self, caller: Caller) -> bool:
        """Whether nothing but the token's scopes limits a caller."""

    def to_app(self, caller: Caller, guid: str) -> Access: ...

    def sees_space(self, caller: Caller, guid: str) -> bool: ...

    def sees_organization(self, caller: Caller, guid: str) -> bool: ...

    def apps_seen(self, caller: Caller, among: Among | None = None) -> Selection:
        """The apps whose packages and droplets a caller sees, who is not unrestricted.

        With `among` only those count, if that tells more, or costs less. Raises `TooManyApps`.
        """

    def places_seen(self, caller: Caller) -> Places:
        """Where a caller sees what happens, who is not unrestricted, beside those apps."""


class AuthorizationAway(OSError):
    """It can't be found out what a caller may do, before something is back."""


class AuthorizationUnclear(Exception):
    """What was answered does not tell what a caller may do; others may be told all the same."""


class ByScopes:
    """The scopes alone count: whoever may write at all may write everywhere."""

    def unrestricted(self, caller: Caller) -> bool:
        return True

    def to_app(self, caller: Caller, guid: str) -> Access:
        return Access.WRITE

    def sees_space(self, caller: Caller, guid: str) -> bool:
        return True

    def sees_organization(self, caller: Caller, guid: str) -> bool:
        return True

    def apps_seen(self, caller: Caller, among: Among | None = None) -> Selection:
        raise AssertionError("nobody is restricted")

    def places_seen(self, caller: Caller) -> Places:
        raise AssertionError("nobody is restricted")


class ByRoles:
    """A SpaceDeveloper may do all; every other role may read."""

    def __init__(self, roles: RoleReadModel, require_level: Callable[[], None]) -> None:
        """`require_level` returns when roles and directory have all that the log has, or raises."""
        self._roles = roles
        self._require_level = require_level

    def unrestricted(self, caller: Caller) -> bool:
        return caller.is_admin

    def to_app(self, caller: Caller, guid: str) -> Access:
        self._require_level()
        held = self._roles.in_app(caller.guid, guid)
        if RoleType.SPACE_DEVELOPER in held:
            return Access.WRITE
        return Access.READ if held else Access.NONE

    def sees_space(self, caller: Caller, guid: str) -> bool:
        self._require_level()
        return bool(self._roles.in_space(caller.guid, guid))

    def sees_organization(self, caller: Caller, guid: str) -> bool:
        self._require_level()
        return bool(self._roles.in_organization(caller.guid, guid))

    def apps_seen(self, caller: Caller, among: Among | None = None) -> Selection:
        self._require_level()
        return self._roles.apps_of(caller.guid)

    def places_seen(self, caller: Caller) -> Places:
        self._require_level()
        return Places(self._roles.spaces_of(caller.guid), self._roles.organizations_of(caller.guid))


class ByCloudController:
    """A Cloud Controller tells, asked with the caller's own token; what it tells is kept a moment.

    Source of the route, and of what it answers:
    https://v3-apidocs.cloudfoundry.org (Get permissions for an app): who may read sensitive data
    is who may change the app.
    """

    def __init__(
        self,
        url: str,
        packages: PackageReadModel,
        droplets: DropletReadModel,
        directory: DirectoryReadModel,
        timeout: float = TIMEOUT,
        remembered_for: float = REMEMBERED_FOR,
    ) -> None:
        self._url = url
        self._packages = packages
        self._droplets = droplets
        self._directory = directory
        self._remembered_for = remembered_for
        self._fetcher = Fetcher(timeout)
        # An answer of any kind is no failure here: it may be for what one caller has asked, and
        # would shut out all others.
        self._breaker = Breaker(
            (NoAnswer,), lambda: AuthorizationAway("the Cloud Controller is away")
        )
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._known: OrderedDict[bytes, tuple[Access, float]] = OrderedDict()
        self._lock = threading.Lock()

    def unrestricted(self, caller: Caller) -> bool:
        return caller.is_admin

    def to_app(self, caller: Caller, guid: str) -> Access:
        if faults_of_name("App guid", guid) or guid in _NO_SEGMENT:
            return Access.NONE  # no app of a Cloud Controller is called so
        key = hashlib.sha256(f"{caller.token}\0{guid}".encode()).digest()
        with self._lock:
            known = self._known.get(key)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        access = self._ask_in_turn(caller, guid)
        with self._lock:
            self._known[key] = (access, time.monotonic() + self._remembered_for)
            self._known.move_to_end(key)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return access

    def _ask_in_turn(self, caller: Caller, guid: str) -> Access:
        """So many ask at once: a slow Cloud Controller must not hold every worker thread."""
        if not self._turns.acquire(timeout=TURN):
            raise AuthorizationAway("too many wait for the Cloud Controller")
        try:
            return self._ask(caller, guid)
        finally:
            self._turns.release()

    def _ask(self, caller: Caller, guid: str) -> Access:
        try:
            with self._breaker():
                answer = self._fetcher.get(
                    f"{self._url}/v3/apps/{quote(guid, safe='')}/permissions",
                    {"Authorization": f"bearer {caller.token}"},
                )
        except NoAnswer as error:
            raise AuthorizationAway(f"the Cloud Controller: {error}") from error
        if answer.status == 200:
            if answer.content.get("read_sensitive_data") is True:
                return Access.WRITE
            return Access.READ if answer.content.get("read_basic_data") is True else Access.NONE
        if answer.status == 401:
            raise InvalidToken("the Cloud Controller does not accept the token")
        if 400 <= answer.status < 500 and answer.status not in _LATER:
            return Access.NONE
        told = f"the Cloud Controller answered {answer.status}"
        raise AuthorizationAway(told) if answer.status in _AWAY else AuthorizationUnclear(told)

    def sees_space(self, caller: Caller, guid: str) -> bool:
        return self._sees_any(caller, self._directory.apps_of_space(guid))

    def sees_organization(self, caller: Caller, guid: str) -> bool:
        spaces = self._directory.spaces_of_organization(guid)
        return self._sees_any(
            caller, [app for space in spaces for app in self._directory.apps_of_space(space)]
        )

    def apps_seen(self, caller: Caller, among: Among | None = None) -> Selection:
        """Of those, else of all that have packages or droplets: `MAX_APPS` there may be."""
        most = MAX_APPS + 1
        if among is not None:
            apps = sorted(set(among(most)))
        else:
            apps = sorted({*self._packages.apps(most), *self._droplets.apps(most)})
        if len(apps) > MAX_APPS:
            raise TooManyApps(MAX_APPS)
        return list(self._seen_of(caller, apps))

    def places_seen(self, caller: Caller) -> Places:
        """It tells of apps alone."""
        return Places((), ())

    def _sees_any(self, caller: Caller, apps: list[str]) -> bool:
        return any(self._seen_of(caller, apps[:MAX_APPS]))

    def _seen_of(self, caller: Caller, apps: list[str]) -> Iterator[str]:
        """Those of the apps that the caller sees. Raises `AuthorizationAway` if it takes long."""
        deadline = time.monotonic() + LIST_PATIENCE
        for app in apps:
            if time.monotonic() > deadline:
                raise AuthorizationAway(f"{len(apps)} apps took more than {LIST_PATIENCE} s")
            if self.to_app(caller, app):
                yield app


class Guard:
    """Refuses what a caller may not see or change. May raise what its `Authorization` does."""

    def __init__(self, authorization: Authorization) -> None:
        self._authorization = authorization

    def see_app(self, caller: Caller, guid: str) -> None:
        """Raises `AppNotFound`."""
        self._see(caller, guid, AppNotFound(guid))

    def change_app(self, caller: Caller, guid: str) -> None:
        """Raises `AppNotFound`, `NotAuthorized`."""
        self._change(caller, guid, AppNotFound(guid))

    def see_package(self, caller: Caller, guid: str, app_guid: str) -> None:
        """Raises `PackageNotFound`."""
        self._see(caller, app_guid, PackageNotFound(guid))

    def see_trail(self, caller: Caller, guid: str, app_guid: str) -> None:
        """Who did what to a package: builders see no more than others. Raises `PackageNotFound`."""
        self._see_as_others(caller, app_guid, PackageNotFound(guid))

    def change_package(self, caller: Caller, guid: str, app_of: Callable[[str], str]) -> None:
        """`app_of` finds a package's app, or raises. Raises `PackageNotFound`, `NotAuthorized`."""
        if not self._authorization.unrestricted(caller):
            self._change(caller, app_of(guid), PackageNotFound(guid))

    def see_droplet(self, caller: Caller, guid: str, app_guid: str) -> None:
        """Raises `DropletNotFound`."""
        self._see(caller, app_guid, DropletNotFound(guid))

    def change_droplet(self, caller: Caller, guid: str, app_of: Callable[[str], str]) -> None:
        """`app_of` finds a droplet's app, or raises. Raises `DropletNotFound`, `NotAuthorized`."""
        if not self._authorization.unrestricted(caller):
            self._change(caller, app_of(guid), DropletNotFound(guid))

    def answer_for_droplet(self, caller: Caller, guid: str, app_of: Callable[[str], str]) -> None:
        """A builder may, and who may change the droplet. Raises as `change_droplet`."""
        if not caller.is_builder:
            self.change_droplet(caller, guid, app_of)

    def sees_space(self, caller: Caller, guid: str) -> bool:
        return self._sees_all(caller) or self._authorization.sees_space(caller, guid)

    def sees_organization(self, caller: Caller, guid: str) -> bool:
        return self._sees_all(caller) or self._authorization.sees_organization(caller, guid)

    def events_seen(self, caller: Caller, among: Among | None = None) -> Visible | None:
        """The audit events that a caller sees; None for all. Builders see no more than others.

        `among` are the apps that they are asked of. Raises `TooManyApps`.
        """
        if self._authorization.unrestricted(caller):
            return None
        apps = self._authorization.apps_seen(caller, among)
        return Visible(apps, self._authorization.places_seen(caller))

    def sees_event(
        self, caller: Caller, app_guid: str | None, happened_in: Callable[[Places], bool]
    ) -> bool:
        """Whether a caller sees one of an app, or one that `happened_in` such places."""
        if self._authorization.unrestricted(caller):
            return True
        if app_guid is not None and self._authorization.to_app(caller, app_guid):
            return True
        return happened_in(self._authorization.places_seen(caller))

    def apps_seen(self, caller: Caller) -> Selection | None:
        """The apps whose packages and droplets a caller sees; None for all."""
        return None if self._sees_all(caller) else self._authorization.apps_seen(caller)

    def _sees_all(self, caller: Caller) -> bool:
        return caller.is_builder or self._authorization.unrestricted(caller)

    def _see(self, caller: Caller, app_guid: str, not_found: Refusal) -> None:
        if not caller.is_builder:
            self._see_as_others(caller, app_guid, not_found)

    def _see_as_others(self, caller: Caller, app_guid: str, not_found: Refusal) -> None:
        unrestricted = self._authorization.unrestricted(caller)
        if not unrestricted and not self._authorization.to_app(caller, app_guid):
            raise not_found

    def _change(self, caller: Caller, app_guid: str, not_found: Refusal) -> None:
        if self._authorization.unrestricted(caller):
            return
        access = self._authorization.to_app(caller, app_guid)
        if access is Access.NONE and not caller.is_builder:
            raise not_found
        if access is not Access.WRITE:
            raise NotAuthorized(f"{caller.guid} may not change app {app_guid!r}")
