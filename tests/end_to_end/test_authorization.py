"""Who may do what: by roles, and by a Cloud Controller that is asked, on every route."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from adapters.tokens import Scope
from tests.support.issuer import JsonServer
from tests.support.service import ROOT, Client, Service, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip, zip_of

DIRECTORY = {
    "organizations": [{"guid": "org-1", "name": "retail"}, {"guid": "org-2", "name": "other"}],
    "spaces": [
        {"guid": "space-1", "name": "production", "organization_guid": "org-1"},
        {"guid": "space-2", "name": "staging", "organization_guid": "org-2"},
    ],
    "apps": [
        {"guid": "app-1", "name": "shop", "space_guid": "space-1"},
        {"guid": "app-1b", "name": "shop two", "space_guid": "space-1"},
        {"guid": "app-2", "name": "elsewhere", "space_guid": "space-2"},
        {"guid": "app-0", "name": "nowhere"},
    ],
}
ROLES = {
    "roles": [
        {"user_guid": "developer", "type": "SpaceDeveloper", "space_guid": "space-1"},
        {"user_guid": "manager", "type": "SpaceManager", "space_guid": "space-1"},
        {"user_guid": "auditor", "type": "SpaceAuditor", "space_guid": "space-1"},
        {"user_guid": "org-manager", "type": "OrgManager", "organization_guid": "org-1"},
        {"user_guid": "stranger", "type": "SpaceDeveloper", "space_guid": "space-2"},
        {"user_guid": "stranger", "type": "OrgManager", "organization_guid": "org-2"},
    ]
}
SMALL = random_zip(1000)
PACKED = zip_of({"Procfile": b"web: run\n", "app.py": b"pass\n"})
READERS = ("manager", "auditor", "org-manager")
OUTSIDERS = ("stranger", "nobody")


def run(service: Service, *arguments: str, content: object = None) -> str:
    """The `packtrail` command beside the service; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints", *arguments],
        cwd=ROOT, env=service.environment(), input=json.dumps(content), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout


class CloudController(JsonServer):
    """Speaks `GET /v3/apps/:guid/permissions`; knows the same roles, by the token's user."""

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        bearer = headers["Authorization"].removeprefix("bearer ")
        user = jwt.decode(bearer, options={"verify_signature": False})["user_id"]
        app = path.split("/")[3]
        member = app in ("app-1", "app-1b") and user in ("developer", *READERS)
        if user == "stranger" and app == "app-2":
            member = True
        if path != f"/v3/apps/{app}/permissions" or not member:
            return 404, {"errors": []}
        return 200, {
            "read_basic_data": True,
            "read_sensitive_data": user in ("developer", "stranger"),
        }


class House:
    """A service with the directory above, a READY package and a STAGED droplet in space-1."""

    def __init__(self, service: Service, by: str) -> None:
        self.service = service
        self.by = by
        self.developer = self.client("developer")
        self.admin = Client(service, token=token("admin", (Scope.ADMIN,)))
        self.package = self.developer.push(PACKED, "app-1")["guid"]
        self.droplet = self._staged(self.package)

    def client(self, user: str) -> Client:
        return Client(self.service, token=token(user))

    def _staged(self, package: str) -> str:
        asked = self.developer.http.post(f"/v3/packages/{package}/droplets", json={})
        assert asked.status_code == 201, asked.text
        guid: str = asked.json()["guid"]
        path = f"/v3/droplets/{guid}"
        eventually(lambda: self.developer.http.get(path).json()["state"] == "STAGED", 30)
        return guid

    def new_droplet(self) -> str:
        return self._staged(self.package)


@pytest.fixture(
    scope="module", params=["roles", pytest.param("cloud_controller", marks=pytest.mark.slow)]
)
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with CloudController() as controller:
        settings = {"PACKTRAIL_AUTHORIZATION": request.param, "PACKTRAIL_KEPT_DROPLETS": "all"}
        if request.param == "cloud_controller":
            settings["PACKTRAIL_CLOUD_CONTROLLER_URL"] = controller.url
        with Service(tmp_path_factory.mktemp(request.param), settings) as service:
            run(service, "apps", "import", "-", content=DIRECTORY)
            run(service, "roles", "import", "-", content=ROLES)
            yield House(service, request.param)


Ask = Callable[[House, httpx.Client], httpx.Response]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_package(house: House, app: str = "app-1") -> str:
    return house.developer.create(app)


READS: dict[str, tuple[Ask, str]] = {
    "app": (lambda h, c: c.get("/v3/apps/app-1"), "App"),
    "space": (lambda h, c: c.get("/v3/spaces/space-1"), "Space"),
    "organization": (lambda h, c: c.get("/v3/organizations/org-1"), "Organization"),
    "packages of app": (lambda h, c: c.get("/v3/apps/app-1/packages"), "App"),
    "droplets of app": (lambda h, c: c.get("/v3/apps/app-1/droplets"), "App"),
    "package": (lambda h, c: c.get(f"/v3/packages/{h.package}"), "Package"),
    "download": (lambda h, c: c.get(f"/v3/packages/{h.package}/download"), "Package"),
    "droplet": (lambda h, c: c.get(f"/v3/droplets/{h.droplet}"), "Droplet"),
    "events of package": (lambda h, c: c.get(f"/v3/packages/{h.package}/events"), "Package"),
    "package as it was": (lambda h, c: c.get(f"/v3/packages/{h.package}?at={now()}"), "Package"),
}
WRITES: dict[str, tuple[Ask, int, str]] = {
    "create": (lambda h, c: c.post("/v3/apps/app-1/packages", json={"type": "bits"}), 201, "App"),
    "copy to": (
        lambda h, c: c.post(f"/v3/apps/app-1b/packages?source_package_guid={h.package}"),
        201,
        "App",
    ),
    "upload": (
        lambda h, c: c.post(
            f"/v3/packages/{new_package(h)}/upload", files={"bits": ("a.zip", SMALL)}
        ),
        200,
        "Package",
    ),
    "large upload": (
        lambda h, c: c.post(
            f"/v3/packages/{new_package(h)}/upload", files={"bits": ("a.zip", random_zip(200_000))}
        ),
        200,
        "Package",
    ),
    "stage": (lambda h, c: c.post(f"/v3/packages/{h.package}/droplets", json={}), 201, "Package"),
    "delete package": (lambda h, c: c.delete(f"/v3/packages/{new_package(h)}"), 204, "Package"),
    "delete droplet": (lambda h, c: c.delete(f"/v3/droplets/{h.new_droplet()}"), 204, "Droplet"),
}


def told(response: httpx.Response) -> tuple[int, int]:
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize("what", READS)
def test_members_read_and_others_find_nothing(house: House, what: str) -> None:
    """Every role may read; to everyone else it is not there."""
    ask, kind = READS[what]
    for user in ("developer", *READERS):
        assert ask(house, house.client(user).http).status_code == 200, user
    assert ask(house, house.admin.http).status_code == 200
    for user in OUTSIDERS:
        response = ask(house, house.client(user).http)
        assert told(response) == (404, 10010), user
        assert response.json()["description"] == f"{kind} not found"


@pytest.mark.parametrize("what", WRITES)
def test_only_developers_write(house: House, what: str) -> None:
    """Who may read is told that they may not; to everyone else it is not there."""
    ask, done, kind = WRITES[what]
    assert ask(house, house.developer.http).status_code == done
    assert ask(house, house.admin.http).status_code == done
    for user in READERS:
        assert told(ask(house, house.client(user).http)) == (403, 10003), user
    for user in OUTSIDERS:
        response = ask(house, house.client(user).http)
        assert told(response) == (404, 10010), user
        assert response.json()["description"] == f"{kind} not found"


def test_a_copy_needs_a_role_in_both_spaces(house: House) -> None:
    """A source that may not be seen is not found, whoever owns the destination."""
    stranger = house.client("stranger").http
    path = f"/v3/apps/app-2/packages?source_package_guid={house.package}"
    response = stranger.post(path)
    assert (told(response), response.json()["description"]) == ((404, 10010), "Package not found")
    response = house.developer.http.post(path)
    assert (told(response), response.json()["description"]) == ((404, 10010), "App not found")


def test_lists_hold_what_may_be_seen(house: House) -> None:
    """And count only that; an admin sees all."""
    theirs = house.client("stranger")
    theirs.create("app-2")
    everything = house.admin.http.get("/v3/packages?per_page=5000").json()
    apps = {entry["links"]["app"]["href"] for entry in everything["resources"]}
    assert {"/v3/apps/app-1", "/v3/apps/app-2"} <= apps
    sees: dict[str, set[str]] = {
        "auditor": {"app-1", "app-1b"}, "stranger": {"app-2"}, "nobody": set(),
    }  # fmt: skip
    for user, seen in sees.items():
        for kind in ("packages", "droplets"):
            page = house.client(user).http.get(f"/v3/{kind}?per_page=5000").json()
            found = [entry["links"]["app"]["href"] for entry in page["resources"]]
            assert page["pagination"]["total_results"] == len(found)
            assert set(found) <= {f"/v3/apps/{guid}" for guid in seen}
            if kind == "packages":
                assert len(found) == sum(
                    entry["links"]["app"]["href"] in {f"/v3/apps/{guid}" for guid in seen}
                    for entry in everything["resources"]
                )


def test_audit_events_are_those_of_what_may_be_seen(house: House) -> None:
    """Those of apps, and by roles of spaces; one that may not be seen is not there."""
    house.client("stranger").create("app-2")
    new_package(house, "app-1b")  # a Cloud Controller is asked of apps that have packages

    def listed(http: httpx.Client, query: str = "") -> list[dict[str, Any]]:
        page = http.get(f"/v3/audit_events?per_page=5000{query}").json()
        assert page["pagination"]["total_results"] == len(page["resources"])
        events: list[dict[str, Any]] = page["resources"]
        return events

    everything = listed(house.admin.http)
    theirs = {"developer": ("app-1", "app-1b"), "auditor": ("app-1", "app-1b"),
              "stranger": ("app-2",), "nobody": ()}  # fmt: skip
    for user, apps in theirs.items():
        http = house.client(user).http
        seen = listed(http)
        of_apps = [event for event in everything if event["target"]["guid"] in apps]
        assert [event for event in seen if event["target"]["type"] == "app"] == of_apps
        others = {event["type"] for event in seen if event["target"]["type"] != "app"}
        assert bool(others) == (house.by == "roles" and bool(apps)), user
        assert listed(http, "&target_guids=app-1") == [
            event for event in of_apps if event["target"]["guid"] == "app-1"
        ]
        for event in everything:
            if event["target"]["guid"] in ("app-1", "app-2", "org-1"):
                answer = http.get(event["links"]["self"]["href"])
                assert answer.status_code == (200 if event in seen else 404), (user, event)


def test_a_builder_hears_no_more_than_others_of_who_did_what(house: House) -> None:
    """It sees every package, and not what people did."""
    builder = Client(house.service, token=token("a-builder", (Scope.READ, Scope.BUILDER))).http
    assert builder.get(f"/v3/packages/{house.package}").status_code == 200
    assert builder.get("/v3/audit_events").json()["resources"] == []
    assert told(builder.get(f"/v3/packages/{house.package}/events")) == (404, 10010)


def test_pages_of_what_may_be_seen_fit_together(house: House) -> None:
    """In creation order, each once."""
    http = house.client("auditor").http
    for _ in range(3):
        new_package(house)
    whole = http.get("/v3/packages?per_page=5000").json()["resources"]
    count = -(-len(whole) // 5)
    pages = [http.get(f"/v3/packages?per_page=5&page={n + 1}").json() for n in range(count)]
    together = [entry for page in pages for entry in page["resources"]]
    assert [entry["guid"] for entry in together] == [entry["guid"] for entry in whole]


def test_an_app_that_is_in_no_space_is_nobodys(house: House) -> None:
    """Nor is one that nobody has announced."""
    for app in ("app-0", "never-announced"):
        for user in ("developer", "stranger"):
            http = house.client(user).http
            created = http.post(f"/v3/apps/{app}/packages", json={"type": "bits"})
            assert told(created) == (404, 10010)
            assert told(http.get(f"/v3/apps/{app}/packages")) == (404, 10010)


def test_the_contracts_order_holds(house: House) -> None:
    """What is wrong with a request is told first, then what is not there, then who may not."""
    auditor, nobody = house.client("auditor").http, house.client("nobody").http
    for http in (auditor, nobody):
        assert http.post("/v3/apps/app-1/packages", content=b"{").status_code == 400
        assert told(http.post("/v3/apps/app-1/packages", json={"type": "x"})) == (422, 10008)
        assert told(http.get("/v3/apps/app-1/packages?page=0")) == (400, 10005)
        stage = f"/v3/packages/{house.package}/droplets"
        assert told(http.post(stage, json={"memory_limit": "x"})) == (422, 10008)
        upload = f"/v3/packages/{house.package}/upload"
        assert told(http.post(upload, json={})) == (422, 10008)
    not_ready = new_package(house)
    assert told(auditor.post(f"/v3/packages/{not_ready}/droplets", json={})) == (403, 10003)
    assert told(
        auditor.post(f"/v3/packages/{house.package}/upload", files={"bits": ("a", b"x")})
    ) == (
        403,
        10003,
    )
    missing = auditor.post("/v3/packages/nothing/upload", files={"bits": ("a", b"x")})
    assert told(missing) == (404, 10010)


def test_the_scope_comes_before_the_role(house: House) -> None:
    """A developer whose token may only read is told so, also of what is not there."""
    reader = Client(house.service, token=token("developer", (Scope.READ,))).http
    for path in ("/v3/apps/app-1/packages", "/v3/apps/none/packages"):
        assert told(reader.post(path, json={"type": "bits"})) == (403, 10003)


def test_a_builder_sees_everything_and_changes_nothing(house: House) -> None:
    """Its scope lets it fetch what it builds; what it may answer, it answers by message."""
    scopes = (Scope.READ, Scope.WRITE, Scope.BUILDER)
    builder = Client(house.service, token=token("a-builder", scopes)).http
    for path in (f"/v3/packages/{house.package}/download", f"/v3/droplets/{house.droplet}"):
        assert builder.get(path).status_code == 200
    assert told(builder.delete(f"/v3/packages/{house.package}")) == (403, 10003)
    created = builder.post("/v3/apps/app-1/packages", json={"type": "bits"})
    assert told(created) == (403, 10003)


def test_the_current_droplet_is_for_developers(house: House) -> None:
    """And a droplet that the caller may not see is not there."""
    body = {"droplet_guid": house.droplet}
    path = "/v3/apps/app-1/current_droplet"
    assert told(house.client("auditor").http.put(path, json=body)) == (403, 10003)
    assert told(house.client("nobody").http.put(path, json=body)) == (404, 10010)
    response = house.client("stranger").http.put("/v3/apps/app-2/current_droplet", json=body)
    assert (told(response), response.json()["description"]) == ((404, 10010), "Droplet not found")
    assert house.developer.http.put(path, json=body).status_code == 200


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"PACKTRAIL_AUTHORIZATION": "roles"}
    with Service(tmp_path_factory.mktemp("roles"), settings) as service:
        run(service, "apps", "import", "-", content=DIRECTORY)
        run(service, "roles", "import", "-", content=ROLES)
        yield service


def status(service: Service, user: str, path: str = "/v3/apps/app-1") -> int:
    return Client(service, token=token(user)).http.get(path).status_code


@pytest.mark.slow
def test_a_role_counts_from_the_next_request_on(roles: Service) -> None:
    """Given, taken back, and given again, while the service runs."""
    grant = {"roles": [{"user_guid": "new", "type": "SpaceAuditor", "space_guid": "space-1"}]}
    assert status(roles, "new") == 404
    for action, expected in (("import", 200), ("remove", 404), ("import", 200)):
        assert "1 of them changed" in run(roles, "roles", action, "-", content=grant)
        assert status(roles, "new") == expected


@pytest.mark.slow
def test_nobody_reaches_into_a_suspended_organization(roles: Service) -> None:
    """But admins; and all is as it was when it is activated again."""
    organization = {"guid": "org-1", "name": "retail", "suspended": True}
    run(roles, "apps", "import", "-", content={"organizations": [organization]})
    try:
        for user in ("developer", "auditor", "org-manager"):
            for path in ("/v3/apps/app-1", "/v3/spaces/space-1", "/v3/organizations/org-1"):
                assert status(roles, user, path) == 404, (user, path)
        listed = Client(roles, token=token("developer")).http.get("/v3/packages").json()
        assert listed["pagination"]["total_results"] == 0
        admin = Client(roles, token=token("admin", (Scope.ADMIN,))).http
        assert admin.get("/v3/apps/app-1").status_code == 200
        run(
            roles,
            "apps",
            "import",
            "-",
            content={"organizations": [{**organization, "suspended": None}]},
        )
        assert status(roles, "developer") == 404, "an announcement without it changes nothing"
    finally:
        organization["suspended"] = False
        run(roles, "apps", "import", "-", content={"organizations": [organization]})
    assert status(roles, "developer") == 200


@pytest.mark.slow
def test_roles_can_be_listed_and_taken_in_again(roles: Service) -> None:
    """What is printed is a file for import, and holds what is held."""
    listed = json.loads(run(roles, "roles", "list"))
    assert {tuple(entry.values()) for entry in ROLES["roles"]} <= {
        tuple(entry.values()) for entry in listed["roles"]
    }
    assert "0 of them changed" in run(roles, "roles", "import", "-", content=listed)
    of_one = json.loads(run(roles, "roles", "list", "--user", "auditor"))
    assert of_one == {"roles": [ROLES["roles"][2]]}


@pytest.mark.slow
def test_a_cloud_controller_that_is_away_lets_nobody_in(tmp_path: Path) -> None:
    """Nor does it keep anybody waiting; admins, who need no asking, go on."""
    with CloudController() as controller:
        settings = {
            "PACKTRAIL_AUTHORIZATION": "cloud_controller",
            "PACKTRAIL_CLOUD_CONTROLLER_URL": controller.url,
        }
        with Service(tmp_path, settings) as service:
            developer = Client(service, token=token("developer")).http
            assert developer.get("/v3/apps/app-1/packages").status_code == 200
            controller.stop()
            response = developer.get("/v3/apps/app-1b/packages")
            assert told(response) == (503, 10001)
            assert response.headers["Retry-After"] == "1"
            created = developer.post("/v3/apps/app-1b/packages", json={"type": "bits"})
            assert told(created) == (503, 10001)
            admin = Client(service, token=token("admin", (Scope.ADMIN,))).http
            assert admin.get("/v3/apps/app-1/packages").status_code == 200
            controller.start()
            eventually(lambda: developer.get("/v3/apps/app-1b/packages").status_code == 200, 10)


@pytest.mark.slow
def test_a_slow_cloud_controller_holds_up_only_who_needs_it(tmp_path: Path) -> None:
    """So many wait for it at once; others are told to come again, and the rest goes on."""
    with CloudController() as controller:
        settings = {
            "PACKTRAIL_AUTHORIZATION": "cloud_controller",
            "PACKTRAIL_CLOUD_CONTROLLER_URL": controller.url,
        }
        with Service(tmp_path, settings) as service, ThreadPoolExecutor(16) as pool:
            controller.hold.clear()
            own = token("developer")

            def ask(number: int) -> int:
                path = f"/v3/apps/app-{number}/packages"
                return Client(service, token=own).http.get(path).status_code

            asked = [pool.submit(ask, number) for number in range(16)]
            eventually(lambda: len(controller.asked) == 4, 10)
            health = Client(service).http.get("/healthz")
            assert health.status_code == 200
            assert health.elapsed.total_seconds() < 2, "what it takes for the first to give up"
            assert {one.result() for one in asked} == {503}
            controller.hold.set()
            eventually(lambda: ask(1) == 200, 10)


def test_what_a_cloud_controller_told_is_kept_a_moment(tmp_path: Path) -> None:
    """It is asked with the caller's own token, once for several requests."""
    with CloudController() as controller:
        settings = {
            "PACKTRAIL_AUTHORIZATION": "cloud_controller",
            "PACKTRAIL_CLOUD_CONTROLLER_URL": controller.url,
        }
        with Service(tmp_path, settings) as service:
            own = token("developer")
            developer = Client(service, token=own).http
            for _ in range(5):
                assert developer.get("/v3/apps/app-1/packages").status_code == 200
            paths = [path for path, _ in controller.asked]
            assert set(paths) == {"/v3/apps/app-1/permissions"}
            assert len(paths) < 5
            assert all(h["Authorization"] == f"bearer {own}" for _, h in controller.asked)
