"""Droplets and apps as the contract has them: their JSON, lists, and every refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.tokens import Scope
from domain.directory import App
from domain.droplet import BuiltDroplet
from domain.droplet_service import Wanted
from domain.package import Digests, PackageType
from tests.end_to_end import test_contract_errors as errors
from tests.end_to_end.test_contract_errors import Expected, bad_query, expect, unprocessable
from tests.support.packages import BY, DIGESTS, STAGED, STORED, LocalStore
from tests.support.service import Client, Service, bearer, token
from tests.support.zips import random_zip

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
BUILT = BuiltDroplet(STORED, Digests("c" * 40, "d" * 64), {"web": "rackup"}, "ruby 1.6")
World = dict[str, str]  # guids of packages and droplets, by what became of them
NO_DROPLET = (404, 10010, "CF-ResourceNotFound", "Droplet not found")
NO_APP = (404, 10010, "CF-ResourceNotFound", "App not found")
NOT_STAGEABLE = (400, 10004, "CF-InvalidRequest", "The request is invalid")
EMPTY_BODY = errors.parse_error("invalid request body")


def ready(store: LocalStore, app: str) -> str:
    guid = store.service.create(app, PackageType.BITS, None, BY).aggregate.guid
    store.service.start_upload(guid, STAGED, "app.zip", BY)
    store.service.record_stored(guid, STORED, BY)
    store.service.record_hashes(guid, DIGESTS, BY)
    return guid


def seed(path: Path) -> World:
    """Writes into a log what otherwise builders and announcements would."""
    store = LocalStore.open(path)
    packages, droplets = store.service, store.store.services.droplets
    directory = store.store.services.directory
    world: World = {}
    for name in ("staged", "failed", "expired", "others"):
        app = "list-app-2" if name == "others" else "list-app"
        wanted = Wanted(buildpack="ruby" if name == "staged" else None)
        world[name] = droplets.stage(ready(store, app), wanted, BY).aggregate.guid
    droplets.fail(world["failed"], "no buildpack fits", BY)
    for name in ("others", "expired", "staged"):
        droplets.complete(world[name], BUILT, BY)
    droplets.expire(world["expired"], BY)
    directory.announce_space("space-1", "a space", None, BY)
    directory.announce_app("told-app", "one", "space-1", "ruby", BY)
    store.store.services.environments.keep(App.ID_PREFIX + "told-app", {"SEEN": "by all"})
    directory.announce_app("gone-app", "gone", None, None, BY)
    directory.delete_app("gone-app", BY)
    for name, type, url in (("awaiting", "bits", None), ("docker", "docker", "image")):
        world[name] = packages.create("app-1", PackageType(type), url, BY).aggregate.guid
    world["ready"] = ready(store, "app-1")
    store.close()
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return seed(tmp_path_factory.getbasetemp() / "droplets" / "data" / "packtrail.db")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Service]:
    folder = tmp_path_factory.getbasetemp() / "droplets"
    with Service(folder, {"PACKTRAIL_BUILDER": "off"}) as service:
        yield service


def stage(client: Client, package: str, **options: Any) -> httpx.Response:
    return client.http.post(f"/v3/packages/{package}/droplets", **({"json": {}} | options))


def listed(client: Client, path: str) -> list[str]:
    response = client.http.get(path)
    assert response.status_code == 200, response.text
    return [droplet["guid"] for droplet in response.json()["resources"]]


def test_a_new_droplet_is_represented_as_the_contract_has_it(client: Client, world: World) -> None:
    """201; keys in order, pretty-printed, relative links; it is PENDING, and never updated."""
    body = {
        "memory_limit": 2048, "disk_limit": 5000, "stack": "stack-1", "buildpack": "ruby",
        "environment_variables": {"A": "größe", "N": {"n": [1, None, True]}},
    }  # fmt: skip
    response = stage(client, world["ready"], json=body)
    droplet = response.json()
    assert response.status_code == 201
    assert response.text == json.dumps(droplet, indent=2, ensure_ascii=False)
    guid = droplet["guid"]
    assert re.fullmatch(UUID, guid) and re.fullmatch(TIME, droplet["created_at"])
    environment = droplet["environment_variables"]
    application = environment.pop("VCAP_APPLICATION")
    assert list(droplet.items()) == [
        ("guid", guid), ("state", "PENDING"), ("hash", {"type": "sha1", "value": None}),
        ("buildpack", "ruby"), ("error", None), ("procfile", None),
        ("environment_variables", {
            "A": "größe", "N": {"n": [1, None, True]}, "CF_STACK": "stack-1",
            "MEMORY_LIMIT": 2048, "VCAP_SERVICES": {},
        }),
        ("created_at", droplet["created_at"]), ("updated_at", None),
        ("links", {
            "self": {"href": f"/v3/droplets/{guid}"},
            "package": {"href": f"/v3/packages/{world['ready']}"},
            "app": {"href": "/v3/apps/app-1"},
            "assign_current_droplet": {"href": "/v3/apps/app-1/current_droplet", "method": "PUT"},
        }),
    ]  # fmt: skip
    assert list(droplet["links"])[1:] == ["package", "app", "assign_current_droplet"]
    assert application["limits"] == {"mem": 2048, "disk": 5000, "fds": 16384}
    assert client.http.get(f"/v3/droplets/{guid}").content == response.content


def test_a_request_may_say_nothing(client: Client, world: World) -> None:
    """All fields are optional, and null is as good as none; limits are raised to the least."""
    names = ("memory_limit", "disk_limit", "stack", "buildpack", "environment_variables")
    for body in ({}, dict.fromkeys(names), {"memory_limit": 1, "disk_limit": 1}):
        droplet = stage(client, world["ready"], json=body).json()
        environment = droplet["environment_variables"]
        assert (droplet["buildpack"], environment["CF_STACK"]) == (None, "cflinuxfs2")
        assert environment["MEMORY_LIMIT"] == 1024
        assert environment["VCAP_APPLICATION"]["limits"]["disk"] == 4096


def test_droplets_show_what_became_of_them(client: Client, world: World) -> None:
    """A hash, procfile and buildpack, or an error; an expired one still shows its hash."""
    for name, expected in {
        "staged": ("STAGED", "c" * 40, "ruby 1.6", None, "web: rackup"),
        "failed": ("FAILED", None, None, "no buildpack fits", None),
        "expired": ("EXPIRED", "c" * 40, "ruby 1.6", None, "web: rackup"),
    }.items():
        shown = client.http.get(f"/v3/droplets/{world[name]}").json()
        rest = [shown[key] for key in ("buildpack", "error", "procfile")]
        assert (shown["state"], shown["hash"]["value"], *rest) == expected
        assert re.fullmatch(TIME, shown["updated_at"])


def test_lists_are_filtered_and_ordered(client: Client, world: World) -> None:
    """By states and apps, in either direction; a droplet looks there as it does alone."""
    of_app, everywhere = "/v3/apps/list-app/droplets", "/v3/droplets"
    staged, failed, expired, others = list(world.values())[:4]
    apps = "app_guids=list-app,list-app-2"
    for path, expected in (
        (of_app, [staged, failed, expired]),
        (f"{of_app}?states=EXPIRED,STAGED", [staged, expired]),
        (f"{of_app}?states=NONSENSE", []),
        (f"{of_app}?order_by=created_at", [staged, failed, expired]),
        (f"{of_app}?order_by=%2Bcreated_at", [staged, failed, expired]),
        (f"{of_app}?order_by=+created_at", [staged, failed, expired]),
        (f"{of_app}?order_by=-created_at", [expired, failed, staged]),
        (f"{of_app}?order_by=updated_at", [failed, staged, expired]),
        (f"{of_app}?order_by=-updated_at&states=FAILED,STAGED", [staged, failed]),
        (f"{everywhere}?{apps}", [staged, failed, expired, others]),
        (f"{everywhere}?{apps}&states=STAGED&order_by=-created_at", [others, staged]),
        (f"{everywhere}?app_guids=list-app-2", [others]),
        ("/v3/apps/nobody/droplets", []),
    ):
        assert listed(client, path) == expected, path
    for droplet in client.http.get(of_app).json()["resources"]:
        assert droplet == client.http.get(f"/v3/droplets/{droplet['guid']}").json()


@pytest.mark.parametrize(
    ("path", "query", "kept"),
    [
        ("/v3/apps/list-app/droplets", "", "{}"),
        ("/v3/apps/list-app/droplets", "order_by=created_at&", "order_by=%2Bcreated_at&{}"),
        (
            "/v3/droplets", "states=STAGED,FAILED,EXPIRED&order_by=-updated_at&app_guids=list-app&",
            "app_guids=list-app&order_by=-updated_at&{}&states=STAGED%2CFAILED%2CEXPIRED",
        ),
    ],
)  # fmt: skip
def test_links_lead_from_page_to_page(client: Client, path: str, query: str, kept: str) -> None:
    """Sorted parameters, filters kept, the order with its sign; also beyond the last page."""

    def link(number: int) -> dict[str, str]:
        return {"href": f"{path}?{kept.format(f'page={number}&per_page=2')}"}

    pages = [(1, link(2), None, 2), (2, None, link(1), 1), (9, None, link(8), 0)]
    for page, following, previous, entries in pages:
        body = client.http.get(f"{path}?{query}page={page}&per_page=2").json()
        assert list(body["pagination"].items()) == [
            ("total_results", 3), ("first", link(1)), ("last", link(2)),
            ("next", following), ("previous", previous),
        ]  # fmt: skip
        assert len(body["resources"]) == entries


ORDER = "Order by can only be ordered by 'created_at' or 'updated_at'"


@pytest.mark.parametrize(
    ("path", "query", "reason"),
    [
        ("/v3/droplets", "x=1&y=2", "Unknown query parameter(s): 'x', 'y'"),
        ("/v3/droplets", "order_by=guid", ORDER),
        ("/v3/droplets", "order_by=", ORDER),
        ("/v3/droplets", "order_by=--created_at", ORDER),
        ("/v3/droplets", "page=x&order_by=-", f"Page is not a number, {ORDER}"),
        ("/v3/apps/gone-app/droplets", "app_guids=a", "Unknown query parameter(s): 'app_guids'"),
    ],
)  # fmt: skip
def test_a_lists_parameters_are_checked_first(
    client: Client, path: str, query: str, reason: str
) -> None:
    """400 with all that is wrong, before the app is looked for."""
    expect(client.http.get(f"{path}?{query}"), bad_query(reason))


OVER = (400, 10009, "CF-UnableToPerform")
EXCEEDED = "Staging request could not be completed: {} limit exceeded"
NAMES = "Buildpack must be a name or the URL of a git repository"
WRONG = {"buildpack": "no name", "memory_limit": 9000}
REFUSALS: list[tuple[str, Any, Expected]] = [
    ("nobody", b"[]", EMPTY_BODY),
    ("nobody", {"x": 1, "stack": ""}, unprocessable(
        "Unknown field(s): 'x', Stack must be between 1 and 4096 characters"
    )),
    ("ready", {"memory_limit": "1", "disk_limit": 1.5, "stack": 1, "buildpack": 1}, unprocessable(
        "Memory limit must be an integer, Disk limit must be an integer, "
        "Stack must be a string, Buildpack must be a string"
    )),
    ("ready", {"environment_variables": {"cf_a": 1, "port": 1}}, unprocessable(
        "Environment variables cannot start with CF_, Environment variables cannot set PORT"
    )),
    ("nobody", WRONG, errors.NO_PACKAGE),
    ("awaiting", WRONG, unprocessable(NAMES)),
    ("ready", WRONG, unprocessable(NAMES)),
    ("ready", {"buildpack": "https://user:secret@host/x"}, unprocessable(
        "Buildpack must not hold credentials"
    )),
    ("ready", {"buildpack": "https://host/a\0b"}, unprocessable(NAMES)),
    ("awaiting", {"memory_limit": 9000}, NOT_STAGEABLE),
    ("docker", {"memory_limit": 9000}, NOT_STAGEABLE),
    ("ready", {"memory_limit": 8193, "disk_limit": 16385}, (*OVER, EXCEEDED.format("memory"))),
    ("ready", {"memory_limit": 8192, "disk_limit": 16385}, (*OVER, EXCEEDED.format("disk"))),
]  # fmt: skip


@pytest.mark.parametrize("row", range(len(REFUSALS)))
def test_staging_is_checked_in_order(client: Client, world: World, row: int) -> None:
    """JSON 400, fields 422, package 404, buildpack 422, state and type 400, limits 400."""
    which, body, expected = REFUSALS[row]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    before = listed(client, "/v3/droplets")
    expect(stage(client, world.get(which, which), json=None, content=content), expected)
    assert listed(client, "/v3/droplets") == before


@pytest.mark.parametrize("value", ['"\\u0000"', str(2**70), "[" * 500 + "]" * 500])
def test_odd_variables_are_no_fault_of_ours(client: Client, world: World, value: str) -> None:
    """What is JSON is taken or refused, however large or deep."""
    content = f'{{"environment_variables":{{"A":{value}}}}}'.encode()
    response = stage(client, world["ready"], json=None, content=content)
    assert response.status_code in (201, 400, 422), response.text


def test_a_request_can_be_repeated_by_its_key(client: Client, world: World) -> None:
    """The same answer to the byte; another request is refused; a deleted droplet is not remade."""
    headers = {"Idempotency-Key": "stage-17"}
    body = {"environment_variables": {"A": "1"}}
    first = stage(client, world["ready"], json=body, headers=headers)
    assert first.status_code == 201
    assert stage(client, world["ready"], json=body, headers=headers).content == first.content
    other = stage(client, world["ready"], json={"stack": "other"}, headers=headers)
    expect(other, unprocessable("Idempotency-Key was used for another request"))
    guid = first.json()["guid"]
    assert client.http.delete(f"/v3/droplets/{guid}").status_code == 204
    again = stage(client, world["ready"], json=body, headers=headers)
    assert (again.status_code, again.json().get("guid")) == (201, guid)


def test_a_deleted_droplet_is_unknown(client: Client, world: World) -> None:
    """204 without a body; then 404 for all that can be done with a droplet, as for one unknown."""
    guid = stage(client, world["ready"]).json()["guid"]
    response = client.http.delete(f"/v3/droplets/{guid}")
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers
    for droplet in (guid, "nobody", "a%00b"):
        for method in ("GET", "DELETE"):
            expect(client.http.request(method, f"/v3/droplets/{droplet}"), NO_DROPLET)
        expect(client.http.get(f"/v3/droplets/{droplet}/download"), NO_DROPLET)
    assert guid not in listed(client, "/v3/droplets?per_page=5000")


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /v3/packages/x/droplets", "DELETE /v3/droplets/x", "GET /v3/droplets/x",
        "GET /v3/droplets?nonsense=1", "GET /v3/apps/x", "GET /v3/apps/x/droplets?page=0",
        "GET /v3/droplets/x/download",
    ],
)  # fmt: skip
def test_token_and_scope_come_first(client: Client, service: Service, request_line: str) -> None:
    """401 without a token; 403 with the other scope alone; an admin may ask."""
    method, path = request_line.split()
    other = Scope.WRITE if method == "GET" else Scope.READ
    expect(httpx.request(method, f"{service.url}{path}"), errors.NOT_AUTHENTICATED)
    refused = client.http.request(method, path, headers=bearer(token(scopes=(other,))))
    expect(refused, errors.NOT_AUTHORIZED)
    admin = client.http.request(method, path, headers=bearer(token(scopes=(Scope.ADMIN,))))
    assert admin.json()["code"] in (1001, 10005, 10010)


def test_other_methods_are_unknown(service: Service) -> None:
    """404 also without a token; there is no 405."""
    for path in ("/v3/droplets", "/v3/droplets/x", "/v3/packages/x/droplets"):
        for method in ("PUT", "PATCH", "OPTIONS"):
            expect(httpx.request(method, service.url + path), errors.UNKNOWN_REQUEST)


def test_an_app_is_known_from_its_first_package_on(client: Client) -> None:
    """404 before, then an app without a name; its links answer."""
    expect(client.http.get("/v3/apps/new%2Fapp"), NO_APP)
    client.create("new%2Fapp")
    response = client.http.get("/v3/apps/new%2Fapp")
    app, path = response.json(), "/v3/apps/new%2Fapp"
    assert response.text == json.dumps(app, indent=2)
    assert list(app.items()) == [
        ("guid", "new/app"), ("name", None), ("desired_state", "STOPPED"),
        ("total_desired_instances", 0), ("buildpack", None), ("created_at", app["created_at"]),
        ("updated_at", None), ("environment_variables", {}), ("links", {
            "self": {"href": path}, "packages": {"href": f"{path}/packages"},
            "droplets": {"href": f"{path}/droplets"},
        }),
    ]  # fmt: skip
    assert re.fullmatch(TIME, app["created_at"])


def test_an_announced_app_shows_what_was_told(client: Client) -> None:
    """Name, buildpack, environment, space; every link of it answers, as the space does."""
    app = client.http.get("/v3/apps/told-app").json()
    assert (app["name"], app["buildpack"]) == ("one", "ruby")
    assert app["environment_variables"] == {"SEEN": "by all"}
    assert list(app["links"]) == ["self", "space", "packages", "droplets"]
    for link in app["links"].values():
        assert client.http.get(link["href"]).status_code == 200
    space = client.http.get(app["links"]["space"]["href"]).json()
    assert (space["guid"], space["name"]) == ("space-1", "a space")


def all_of_an_app(client: Client, app: str, source: str) -> list[httpx.Response]:
    path = f"/v3/apps/{app}"
    return [
        client.http.get(path), client.http.get(f"{path}/packages"),
        client.http.get(f"{path}/droplets"),
        client.http.post(f"{path}/packages", json={"type": "bits"}),
        client.http.post(f"{path}/packages?source_package_guid={source}"),
    ]  # fmt: skip


def test_a_deleted_app_is_unknown(client: Client, world: World) -> None:
    """404 for all that can be asked of it; the fields of a request come before."""
    for response in all_of_an_app(client, "gone-app", "nobody"):
        expect(response, NO_APP)
    expect(client.http.post("/v3/apps/gone-app/packages", content=b""), EMPTY_BODY)


def test_registered_apps_alone_are_known(tmp_path: Path) -> None:
    """With PACKTRAIL_APPS=registered all is 404 of an app that nobody announced."""
    service = Service(tmp_path, {"PACKTRAIL_APPS": "registered", "PACKTRAIL_BUILDER": "off"})
    world = seed(service.data_dir / "packtrail.db")
    with service:
        client = service.client()
        for app in ("unknown", "list-app"):  # the one has packages, of a time when apps were open
            for response in all_of_an_app(client, app, world["ready"]):
                expect(response, NO_APP)
        expect(client.http.get("/v3/apps/x/droplets?page=x"), bad_query("Page is not a number"))
        answers = all_of_an_app(client, "told-app", world["ready"])
        assert [response.status_code for response in answers] == [200, 200, 200, 201, 201]


def test_every_link_of_a_ready_package_answers(client: Client) -> None:
    """With its method; but for `upload`, which says that bits may be uploaded only once."""
    links = client.push(random_zip(1000), "linked-app")["links"]
    assert list(links) == ["self", "upload", "download", "stage", "app"]
    for name, link in links.items():
        files = {"bits": ("a.zip", b"x")} if name == "upload" else None
        body: Any = {} if name == "stage" else None
        method, href = link.get("method", "GET"), link["href"]
        response = client.http.request(method, href, json=body, files=files)
        if name == "upload":
            expect(response, errors.ALREADY_UPLOADED)
        else:
            assert response.status_code < 400, response.text
