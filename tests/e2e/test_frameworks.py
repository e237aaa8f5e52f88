"""The applications of ``docs/howto``: with streams of their own, and with pushd, in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from select import select

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.e2e.browser import chromium, console_errors
from tests.e2e.daemon import Daemon, free_port, request, running, tcp
from tests.e2e.documents import named
from tests.e2e.programs import eventually, talking_to

pytestmark = pytest.mark.timeout(120)

FLASK, DJANGO = "howto/flask", "howto/django"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


def variables(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an application."""
    return {**os.environ, "NO_PROXY": "*", "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def application(directory: Path, port: int, *arguments: str, **more: str) -> Iterator[None]:
    """Run an application until it is served, and as long as the context lasts."""
    command = [sys.executable, "-W", "default", *arguments]
    with talking_to(command, directory=directory, environment=variables(more)) as program:
        program.until(f"http://127.0.0.1:{port}")
        yield


@contextmanager
def pushd(page: str, port: int, origin: str, directory: Path) -> Iterator[tuple[Daemon, dict[str, str]]]:
    """Run pushd as a page has it configured, for the application at `port`; answer the variables of that, too."""
    secret = directory / "app.secret"
    secret.write_text("s" * 64)
    config = named(page, "pushd-ini")
    assert origin in config
    assert "app.secret" in config
    config = config.replace(origin, f"http://127.0.0.1:{port}").replace("app.secret", str(secret))
    with running(config, listeners=tcp("http", free_port())) as daemon:
        yield daemon, {"PUSHD": daemon.http, "PUSHD_SECRET": str(secret)}


def hear(port: int, *said: str, headers: Mapping[str, str] | None = None) -> list[str]:
    """Open the stream of an application, say something, and answer what the stream has of it."""

    def tell(text: str) -> bool:
        form = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return request(f"http://127.0.0.1:{port}/say", "POST", f"text={text}".encode(), form).status == 204

    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as stream:
        stream.request("GET", "/stream")
        # These servers answer when there is something to stream.
        eventually(lambda: tell("ready") and select([stream.sock], [], [], 0.1)[0], "the stream has begun")
        for text in said:
            assert tell(text)
        heard: list[str] = []
        answer = stream.getresponse()
        while len(heard) < len(said):
            line = answer.readline().decode().strip()
            if line and not line.endswith("ready"):
                heard.append(line)
        return heard


def say(browser: Chrome, text: str) -> None:
    """Say something in the page."""
    browser.find_element(By.NAME, "text").send_keys(text)
    browser.find_element(By.CSS_SELECTOR, "#say button").click()


def sees(browser: Chrome, *said: str) -> None:
    """Wait until the page has just this."""

    def items() -> list[str]:
        return [item.text for item in browser.find_elements(By.CSS_SELECTOR, "#said li")]

    eventually(lambda: items() == list(said), f"the page has {said}")


def talk(browser: Chrome, daemon: Daemon, user: str) -> None:
    """See that the page of a user works, also when pushd was away, and that nobody else can read or write."""
    eventually(lambda: "/sse" in str(browser.page_source) and browser.find_elements(By.ID, "say"), "it is there")
    say(browser, "one")
    sees(browser, f"{user}: one")
    daemon.stop()
    daemon.start()
    say(browser, "two")
    sees(browser, f"{user}: one", f"{user}: two")
    for path, method in (("/sse?channel=chat/lobby", "GET"), ("/channels/chat%2Flobby", "POST")):
        assert request(daemon.http + path, method).status == 401
    browser.refresh()
    sees(browser, f"{user}: one", f"{user}: two")
    allowed = ("401", "ERR_", "WebSocket")
    assert [error for error in console_errors(browser) if not any(word in error for word in allowed)] == []


class TestFlask:
    def test_before_there_are_streams(self, tmp_path: Path) -> None:
        (tmp_path / "app.py").write_text(named(FLASK, "app-before"))
        port = free_port()
        with application(tmp_path, port, "-m", "flask", "--app", "app", "run", "--port", str(port)):
            assert hear(port, "hello", "again") == ["data: somebody: hello", "data: somebody: again"]

    def test_after_there_is_pushd(self, tmp_path: Path, browser: Chrome) -> None:
        (tmp_path / "templates").mkdir()
        (tmp_path / "templates" / "page.html").write_text(named(FLASK, "page"))
        (tmp_path / "push.py").write_text(named(FLASK, "push"))
        (tmp_path / "app.py").write_text(named(FLASK, "app-after"))
        port = free_port()
        command = ("-m", "flask", "--app", "app", "run", "--port", str(port))
        with (
            pushd(FLASK, port, "http://127.0.0.1:5000", tmp_path) as (daemon, more),
            application(tmp_path, port, *command, **more),
        ):
            assert request(f"http://127.0.0.1:{port}/push-token").status == 401
            assert request(f"http://127.0.0.1:{port}/say", "POST").status == 401
            browser.get(f"http://127.0.0.1:{port}/")
            browser.find_element(By.NAME, "user").send_keys("ann")
            browser.find_element(By.TAG_NAME, "button").click()
            talk(browser, daemon, "ann")


class TestDjango:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        """Make a project."""
        self._run(tmp_path, "-m", "django", "startproject", "mysite", ".")
        return tmp_path

    @staticmethod
    def _run(directory: Path, *arguments: str, **more: str) -> None:
        command = [sys.executable, "-W", "default", *arguments]
        done = subprocess.run(
            command, cwd=directory, env=variables(more), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done

    def test_before_there_are_streams(self, project: Path) -> None:
        (project / "mysite" / "views.py").write_text(named(DJANGO, "app-before"))
        (project / "mysite" / "urls.py").write_text(named(DJANGO, "before-urls"))
        self._run(project, "manage.py", "migrate")
        port = free_port()
        with application(project, port, "manage.py", "runserver", "--noreload", str(port)):
            assert request(f"http://127.0.0.1:{port}/say", "POST", b"text=x").status == 403
            forged = {"Cookie": f"csrftoken={'x' * 32}", "X-CSRFToken": "x" * 32}
            assert hear(port, "hello", headers=forged) == ["data: : hello"]

    def test_after_there_is_pushd(self, project: Path, browser: Chrome) -> None:
        site = project / "mysite"
        (site / "templates").mkdir()
        for name in ("page", "login"):
            (site / "templates" / f"{name}.html").write_text(named(DJANGO, name))
        (site / "push.py").write_text(named(FLASK, "push"))
        (site / "views.py").write_text(named(DJANGO, "app-after"))
        (site / "urls.py").write_text(named(DJANGO, "after-urls"))
        with open(site / "settings.py", "a") as settings:
            settings.write(named(DJANGO, "settings"))
        port = free_port()
        with pushd(DJANGO, port, "http://127.0.0.1:8000", project) as (daemon, more):
            self._run(project, "manage.py", "migrate", **more)
            create = ("createsuperuser", "--noinput", "--username", "bob", "--email", "bob@example.com")
            self._run(project, "manage.py", *create, DJANGO_SUPERUSER_PASSWORD="of bob", **more)
            with application(project, port, "manage.py", "runserver", "--noreload", str(port), **more):
                assert request(f"http://127.0.0.1:{port}/push-token").status == 302
                assert request(f"http://127.0.0.1:{port}/say", "POST", b"text=x").status == 403
                browser.get(f"http://127.0.0.1:{port}/")
                browser.find_element(By.NAME, "username").send_keys("bob")
                browser.find_element(By.NAME, "password").send_keys("of bob")
                browser.find_element(By.TAG_NAME, "button").click()
                talk(browser, daemon, "bob")
