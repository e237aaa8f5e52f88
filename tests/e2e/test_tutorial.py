"""The tutorial, done as it is written: each command answers what it says, and the page is live at the end."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGINT

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.e2e.browser import chromium, console_errors
from tests.e2e.daemon import bin_directory, environment, free_port, tcp
from tests.e2e.documents import alike, blocks, named, shell, steps
from tests.e2e.programs import Program, eventually, program, talking_to

pytestmark = pytest.mark.timeout(180)

INSTALL = ("python3 -m venv ~/pushd", "~/pushd/bin/pip install .")
WRITTEN_EPOCH = "2zhpzst6kk"


class Reader:
    """Somebody who follows the tutorial in three terminals, and has a browser."""

    def __init__(self, home: Path, driver: Chrome, stack: ExitStack) -> None:
        """Begin with a home directory that has nothing in it but pushd."""
        self.driver = driver
        self.home = home
        self.push = home / "push"
        self.token = ""
        self.epoch = WRITTEN_EPOCH
        self._stack = stack
        self._port = free_port()
        self._daemon: Program | None = None
        self.stream: Program | None = None
        (home / "pushd").symlink_to(bin_directory().parent)
        (home / "listeners.ini").write_text(self.listeners)

    @property
    def listeners(self) -> str:
        """What stands before each configuration, because the port must not be 8080 here."""
        return tcp("http", self._port)

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{Path(program('curl')).parent}:{os.environ['PATH']}"
        return environment(self.home.parent) | {"HOME": str(self.home), "PATH": path, "no_proxy": "*"}

    def here(self, text: str) -> str:
        """Put in what is different here: the port, and the epoch of this log."""
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{self._port}").replace(WRITTEN_EPOCH, self.epoch)

    def type(self, command: str, output: str) -> None:
        """Do what is said, in the right terminal, and see that what comes is what the tutorial shows."""
        if command.startswith("~/pushd/bin/twistd -n"):
            self.start(command)
        elif command.startswith("curl -N"):
            self.stream = self.run(f"exec {command.replace('-N', '-sN')}")
            for line in output.splitlines():
                assert alike(self.stream.line()) == alike(line)
        elif command.startswith("TOKEN="):
            self.token = f"{command}\n"
        else:
            directory = self.push if self.push.exists() else self.home
            command = re.sub(r"\bcurl\b", "curl -sS", self.here(command))
            said = shell(self.token + command, directory, self._environment)
            if found := re.search('"id":"([0-9a-z]{10})-', said):
                self.epoch = found[1]
            assert alike(said) == alike(output)

    def run(self, command: str) -> Program:
        """Run a program that goes on."""
        arguments = ["bash", "-c", self.here(command)]
        return self._stack.enter_context(talking_to(arguments, directory=self.push, environment=self._environment))

    def start(self, command: str) -> None:
        """Stop pushd if it runs, as with Ctrl-C, and start it."""
        if self._daemon is not None:
            self._daemon.process.send_signal(SIGINT)
            self._daemon.process.wait(20)
        self._daemon = self.run(f"exec {command}{'' if '--config' in command else ' --config ../listeners.ini'}")
        self._daemon.until("pushd listens at ")

    def open(self) -> None:
        """Open the page."""
        console_errors(self.driver)
        self.driver.get(f"http://127.0.0.1:{self._port}/")

    def sees(self, state: str, *news: str) -> None:
        """Wait until the page has this state, and these news and no others, the latest first."""

        def shown() -> tuple[str, list[str]]:
            items = self.driver.find_elements(By.TAG_NAME, "li")
            return self.driver.find_element(By.ID, "state").text, [item.text for item in items]

        eventually(lambda: shown() == (state, list(news)), f"the page is {state} with {news}")

    def has_stopped(self) -> None:
        """Stop pushd for a while."""
        assert self._daemon is not None
        self._daemon.process.send_signal(SIGINT)
        self._daemon.process.wait(20)
        self._daemon = None


@pytest.fixture
def reader() -> Iterator[Reader]:
    with tempfile.TemporaryDirectory(prefix="pushd-tutorial-") as path, ExitStack() as stack:
        home = Path(path) / "home"
        home.mkdir()
        yield Reader(home, stack.enter_context(chromium()), stack)


def write(reader: Reader, names: tuple[str, ...]) -> None:
    """Write a file that the tutorial has the reader write."""
    for name in names:
        text = named("tutorial", name)
        if name == "page":
            (reader.push / "site" / "index.html").write_text(text)
        else:
            (reader.push / "pushd.ini").write_text(reader.listeners + text)


def look(reader: Reader, command: str) -> None:
    """See what the tutorial says that is to be seen after a command."""
    if "'hello'" in command:
        assert reader.stream is not None
        heard = [line for line in (reader.stream.line() for _ in range(3)) if line]
        shown = next(block.text for block in blocks("tutorial") if block.language == "text")
        assert alike("\n".join(heard)) == alike(shown)
        reader.stream.end()
    elif "'It works'" in command:
        reader.sees("live", "It works", "hello")
    elif "poll?" in command:
        reader.has_stopped()
        reader.sees("not connected", "It works", "hello")
    elif "'Back again'" in command:
        reader.sees("live", "Back again", "It works", "hello")
    elif "'With a token'" in command:
        reader.sees("live", "With a token", "Back again", "It works", "hello")


def test_the_tutorial_is_true_to_the_word(reader: Reader) -> None:
    done: list[str] = []
    starts = 0
    for block in blocks("tutorial"):
        write(reader, block.names)
        for command, output in steps(block.text) if block.language == "console" else ():
            done.append(command)
            if command in INSTALL:  # as tests/test_packaging.py does
                continue
            reader.type(command, output)
            look(reader, command)
            if "twistd -n" in command:
                starts += 1
                if starts == 2:
                    reader.open()
                if starts >= 2:
                    news = ["hello"] if starts == 2 else ["It works", "hello"]
                    reader.sees("live", *(["Back again"] if starts == 4 else []), *news)
    assert tuple(done[:2]) == INSTALL
    assert starts == 4
    assert done[-1].endswith("/channels/news'")
    assert [error for error in console_errors(reader.driver) if "ERR_CONNECTION_REFUSED" not in error] == []
