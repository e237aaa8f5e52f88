"""Headless Chromium."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.e2e.programs import program

__all__ = ["another_site", "chromium", "console_errors", "network_log"]

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1280,900",
)


@contextmanager
def chromium(*arguments: str, logs_network: bool = False) -> Iterator[Chrome]:
    """Run Chromium, with more `arguments`, as long as the context lasts; `logs_network` is for `network_log`."""
    options = ChromeOptions()
    options.binary_location = program("chromium")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", **({"performance": "ALL"} if logs_network else {})}
    )
    with tempfile.TemporaryDirectory(prefix="pushd-chromium-", ignore_cleanup_errors=True) as profile:
        for argument in (*_ARGUMENTS, f"--user-data-dir={profile}", *arguments):
            options.add_argument(argument)
        driver = Chrome(options=options, service=Service(program("chromedriver")))
        try:
            driver.set_page_load_timeout(30)
            driver.set_script_timeout(30)
            yield driver
        finally:
            driver.quit()


def console_errors(driver: Chrome) -> list[str]:
    """Return what the browser complained of since this was last asked."""
    entries: list[dict[str, Any]] = driver.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] not in ("DEBUG", "INFO")]


def network_log(driver: Chrome, method: str) -> list[dict[str, Any]]:
    """Return the parameters of each event `method` of the DevTools protocol since the log was last read."""
    entries: list[dict[str, Any]] = driver.get_log("performance")
    messages = [json.loads(entry["message"])["message"] for entry in entries]
    return [message["params"] for message in messages if message["method"] == method]


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files, and does not log."""

    def log_message(self, format: str, *args: object) -> None:
        """Override."""


@contextmanager
def another_site(directory: Path) -> Iterator[str]:
    """Serve a page, whose origin is another because of its port; return where."""
    (directory / "index.html").write_text("<!doctype html><link rel=icon href=data:,><title>another</title>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=directory)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)
