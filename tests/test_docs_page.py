"""The page /docs in a real browser: it shows the API and sends requests under its content security policy.

The browser is controlled by WebDriver, which is plain HTTP (W3C, "WebDriver").
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Workshop, generate
from .processes import WebServer, clean_environment, free_port, serve, wait_until

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="chromedriver is not installed"),
]

FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --disable-dev-shm-usage"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name that the standard gives to a reference
OPERATION = "#operations-notes-notes_create_note"
STATUS = f"{OPERATION} .live-responses-table .response-col_status"


class Browser:
    """A session of a headless browser."""

    def __init__(self, driver: WebServer) -> None:
        self.driver, self.path = driver, ""
        options = {"goog:chromeOptions": {"args": FLAGS.split()}, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self.send("POST", "/session", capabilities={"alwaysMatch": options})
        self.path = f"/session/{session['sessionId']}"

    def send(self, method: str, path: str, **body: Any) -> Any:
        """Send a command to the driver, and return its value."""
        text = json.dumps(body) if method == "POST" else None
        answer = self.driver.send(method, self.path + path, text, {"Content-Type": "application/json"})
        assert answer.status == 200, answer.json
        return answer.json["value"]

    def open(self, address: str) -> None:
        """Load a page."""
        self.send("POST", "/url", url=address)

    def texts(self, selector: str) -> list[str]:
        """Return the text of each element."""
        found = self.send("POST", "/elements", using="css selector", value=selector)
        return [self.send("GET", f"/element/{each[ELEMENT]}/text") for each in found]

    def click(self, selector: str) -> None:
        """Click on the first element, when it is there."""
        wait_until(lambda: self.texts(selector), f"{selector} is shown")
        found = self.send("POST", "/element", using="css selector", value=selector)
        self.send("POST", f"/element/{found[ELEMENT]}/click")

    def problems(self) -> list[str]:
        """Return the errors of the browser's console, violations of the policy among them."""
        lines = self.send("POST", "/se/log", type="browser")
        return [line["message"] for line in lines if line["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def page(default: Path, workshop: Workshop) -> Iterator[WebServer]:
    """The default project, served on SQLite."""
    folder = workshop()
    project = generate(folder)
    (project / ".venv").symlink_to(default / ".venv")
    with serve("make", "serve", cwd=project, log=folder / "log", env={"PYTHONPATH": "src"}) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser with an empty profile."""
    port = free_port()
    command, environment = ("chromedriver", f"--port={port}"), clean_environment()
    with WebServer(
        *command, cwd=tmp_path, log=tmp_path / "log", environment=environment, port=port
    ) as driver:
        wait_until(driver.is_listening, "the driver listens")
        browser = Browser(driver)
        yield browser
        browser.send("DELETE", "")


def test_a_request_can_be_sent_from_the_page(page: WebServer, browser: Browser) -> None:
    """The page lists every operation and stores a note, without a violation of its policy."""
    browser.open(f"http://127.0.0.1:{page.port}/")

    browser.click(f"{OPERATION} .opblock-summary-control")
    browser.click(f"{OPERATION} .execute")

    wait_until(lambda: browser.texts(STATUS), "a response is shown")
    assert browser.texts(STATUS)[-1].startswith("201")
    assert len(browser.texts(".opblock")) == 5
    assert browser.problems() == []
