"""Headless Chromium."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.e2e.programs import program

__all__ = ["chromium", "console_errors", "network_log"]

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
    """Answer what the browser complained of since this was last asked."""
    entries: list[dict[str, Any]] = driver.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] not in ("DEBUG", "INFO")]


def network_log(driver: Chrome, method: str) -> list[dict[str, Any]]:
    """Answer the parameters of each event `method` of the DevTools protocol since the log was last read."""
    entries: list[dict[str, Any]] = driver.get_log("performance")
    messages = [json.loads(entry["message"])["message"] for entry in entries]
    return [message["params"] for message in messages if message["method"] == method]
