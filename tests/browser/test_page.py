"""The page to try the API, in Debian's Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.conftest import found
from tests.support.programs import Missing
from tests.support.service import Client, Service, token
from tests.support.waiting import eventually
from tests.support.zips import random_zip

pytestmark = pytest.mark.slow


def start_browser() -> Chrome:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise Missing("chromium or chromedriver is not installed: make services installs both")
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1280,1000",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options, ChromeService(driver))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    started = found(start_browser)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    client = service.client()
    yield client
    client.close()


class Page:
    """What somebody sees and does."""

    def __init__(self, browser: Chrome, service: Service) -> None:
        self._browser = browser
        browser.get("about:blank")
        browser.get(f"{service.url}/docs")
        eventually(lambda: browser.find_elements(By.CSS_SELECTOR, "details.operation"))
        self.token = browser.find_element(By.ID, "token")

    def open(self, operation: str) -> WebElement:
        shown = self._browser.find_element(By.ID, operation)
        if shown.get_attribute("open") is None:
            shown.find_element(By.TAG_NAME, "summary").click()
        eventually(lambda: shown.find_elements(By.TAG_NAME, "form"))
        return shown

    def fill(self, operation: str, **fields: str) -> None:
        for name, value in fields.items():
            control = self.open(operation).find_element(By.ID, f"{operation}-{name}")
            if control.tag_name != "select" and control.get_attribute("type") != "file":
                control.clear()
            control.send_keys(value)

    def send(self, operation: str) -> WebElement:
        self.open(operation).find_element(By.CSS_SELECTOR, "button").click()
        return self.outcome(operation)

    def outcome(self, operation: str) -> WebElement:
        shown = self.open(operation)
        button = shown.find_element(By.CSS_SELECTOR, "button")
        eventually(lambda: shown.find_elements(By.CSS_SELECTOR, ".answer") and button.is_enabled())
        return shown.find_element(By.CSS_SELECTOR, ".outcome")

    def complaints(self) -> list[str]:
        """What the browser's console has of scripts, styles and loads that were not let through."""
        lines = self._browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [line["message"] for line in lines if line["source"] != "network"]


@pytest.fixture
def page(browser: Chrome, service: Service) -> Page:
    return Page(browser, service)


def test_every_operation_is_shown(page: Page, browser: Chrome, client: Client) -> None:
    """By its tag, with a link to each; nothing was kept from loading."""
    document = client.http.get("/openapi.json").json()
    paths = document["paths"].values()
    operations = [operation["operationId"] for path in paths for operation in path.values()]
    shown = browser.find_elements(By.CSS_SELECTOR, "details.operation")
    assert sorted(one.get_attribute("id") or "" for one in shown) == sorted(operations)
    assert len(browser.find_elements(By.CSS_SELECTOR, "nav a")) == len(operations)
    for operation in operations:
        page.open(operation)
    assert page.complaints() == []


def test_a_package_is_created_uploaded_and_shown(
    page: Page, client: Client, tmp_path: Path
) -> None:
    """With a token, a JSON body, and a file, as a person would."""
    page.token.send_keys(token())
    page.fill("createPackage", guid="app-1")
    created = page.send("createPackage").text
    assert "201 Created" in created
    assert "x-vcap-request-id: " in created
    (guid,) = [p["guid"] for p in client.http.get("/v3/apps/app-1/packages").json()["resources"]]
    assert guid in created
    file = tmp_path / "app.zip"
    file.write_bytes(random_zip(5000))
    page.fill("uploadBits", guid=guid, **{"body-bits": str(file)})
    assert "PROCESSING_UPLOAD" in page.send("uploadBits").text
    assert client.settled(guid)["state"] == "READY"
    page.fill("downloadBits", guid=guid, Range="bytes=0-99")
    assert "206 Partial Content" in page.send("downloadBits").text
    assert "100 bytes of application/zip" in page.outcome("downloadBits").text


def test_a_refusal_is_shown(page: Page) -> None:
    """Without a token: 401, as any client gets it."""
    assert "CF-NotAuthenticated" in page.send("listPackages").text


def test_the_curl_line_does_the_same(page: Page, client: Client) -> None:
    """With what was filled in, quoted for a shell, and without the token itself."""
    page.token.send_keys(token())
    page.fill("createPackage", guid="it's / $mine")
    line = page.open("createPackage").find_element(By.CSS_SELECTOR, ".curl").text
    assert token()[:20] not in line
    run = subprocess.run(
        ["sh", "-c", line], env={**os.environ, "TOKEN": token()}, capture_output=True, text=True,
        timeout=30, check=True,
    )  # fmt: skip
    assert "201 Created" in run.stdout
    assert client.http.get("/v3/apps/it's%20%2F%20$mine/packages").json()["resources"]


def test_the_keyboard_is_enough(page: Page, browser: Chrome) -> None:
    """An operation is opened by Enter on its line, and sent by Enter in a field."""
    summary = browser.find_element(By.CSS_SELECTOR, "#listPackages summary")
    summary.send_keys(Keys.ENTER)
    eventually(lambda: browser.find_elements(By.ID, "listPackages-page"))
    browser.find_element(By.ID, "listPackages-page").send_keys("1" + Keys.ENTER)
    assert "401" in page.outcome("listPackages").text


def test_the_token_is_kept_nowhere(page: Page, browser: Chrome) -> None:
    """Not in the address, nor in what the browser stores."""
    page.token.send_keys("a-secret-token")
    page.send("listPackages")
    assert "a-secret-token" not in browser.current_url
    kept = "return JSON.stringify([localStorage, sessionStorage, document.cookie])"
    assert "a-secret-token" not in browser.execute_script(kept)


def test_what_an_answer_holds_is_text(page: Page, browser: Chrome, client: Client) -> None:
    """Markup in it is shown as it is, and nothing of it runs."""
    markup = "<img src=x onerror=document.title=1><b>bold</b>"
    response = client.http.post(
        "/v3/apps/app-2/packages", json={"type": "docker", "url": f"image{markup}"}
    )
    page.token.send_keys(token())
    page.fill("showPackage", guid=response.json()["guid"])
    answer = page.send("showPackage")
    assert markup in answer.text
    assert answer.find_elements(By.CSS_SELECTOR, "img, b") == []
    assert browser.title == "Packtrail API"
