"""A start after a kill, with plain ``twistd -n pushd`` as in a container, and several starts at once."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from tests.e2e.daemon import environment, free_port, installed, request, tcp
from tests.e2e.programs import eventually, lacks, program

pytestmark = pytest.mark.timeout(90)


def write_config(directory: Path, listener: str) -> None:
    """Write ``pushd.ini`` with a state directory of its own."""
    (directory / "pushd.ini").write_text(f"[pushd]\nstate_directory = {directory}/state\n{listener}")


@contextmanager
def started(directory: Path, name: str, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run plain ``twistd -n pushd`` in `directory`, after the command `before`; its output is in `name`."""
    command = [*before, installed("twistd"), "-n", "pushd", "--config", "pushd.ini"]
    with open(directory / name, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def listens(directory: Path, name: str) -> bool:
    """Return whether the daemon whose output is `name` has said that it listens."""
    return "pushd listens at" in (directory / name).read_text()


def has_begun(directory: Path, name: str, process: subprocess.Popen[bytes]) -> bool:
    """Return whether the daemon listens, or has ended."""
    return listens(directory, name) or process.poll() is not None


def first_child(process: subprocess.Popen[bytes]) -> int:
    """Return the number of the process that is 1 in the namespace, as seen from outside."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def test_in_a_container_it_starts_again_after_a_kill(tmp_path: Path) -> None:
    """Each daemon is process 1; the pid file and the socket of the one before are there."""
    unshare = [program("unshare"), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, timeout=20).returncode != 0:
        lacks("this user may not make a process namespace")
    write_config(tmp_path, f"[listen:unix]\nendpoint = unix:{tmp_path}/s\n")
    for number in range(3):
        with started(tmp_path, f"log{number}", *unshare) as process:
            eventually(partial(has_begun, tmp_path, f"log{number}", process), "it has started")
            assert listens(tmp_path, f"log{number}"), (tmp_path / f"log{number}").read_text()
            assert (tmp_path / "twistd.pid").read_text() == "1\n"
            os.kill(first_child(process), SIGKILL)
            process.wait(20)
        assert (tmp_path / "twistd.pid").exists()
        assert (tmp_path / "s").exists()


@pytest.mark.parametrize("left", ["1\n", "", pytest.param(str(os.getpid()), id="this process"), "99999999"])
def test_a_pid_file_of_a_process_that_is_no_pushd_is_taken_over(left: str, tmp_path: Path) -> None:
    write_config(tmp_path, tcp("http"))
    pidfile = tmp_path / "twistd.pid"
    pidfile.write_text(left)
    with started(tmp_path, "log") as process:
        eventually(partial(has_begun, tmp_path, "log", process), "it has started")
        assert pidfile.read_text() == f"{process.pid}\n", (tmp_path / "log").read_text()
        process.send_signal(SIGTERM)
        process.wait(20)
    assert not pidfile.exists()


@pytest.mark.parametrize("left", ["pid file", "socket", "both"])
def test_of_two_that_start_at_once_one_runs_and_the_other_says_why_not(left: str, tmp_path: Path) -> None:
    """They have state directories of their own, so that only the pid file and the socket can decide."""
    port = free_port()
    for name in ("a", "b"):
        directory = tmp_path / name
        directory.mkdir()
        socket = tmp_path / "s"
        write_config(directory, tcp("http") if left == "pid file" else f"[listen:unix]\nendpoint = unix:{socket}\n")
    del port
    if left in ("pid file", "both"):
        (tmp_path / "twistd.pid").write_text("1\n")
    with ExitStack() as stack:
        processes = []
        for name in ("a", "b"):
            pidfile = tmp_path / ("twistd.pid" if left != "socket" else f"{name}.pid")
            command = [installed("twistd"), "-n", f"--pidfile={pidfile}", "pushd", "--config", f"{name}/pushd.ini"]
            output = stack.enter_context(open(tmp_path / f"log-{name}", "wb"))
            process = subprocess.Popen(
                command, cwd=tmp_path, env=environment(tmp_path), stdout=output, stderr=output
            )
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            processes.append(process)
        logs = [tmp_path / "log-a", tmp_path / "log-b"]
        eventually(lambda: any("pushd listens at" in log.read_text() for log in logs), "one runs")
        eventually(lambda: sum(process.poll() is not None for process in processes) == 1, "the other has ended")
        time.sleep(0.3)
        assert sum("pushd listens at" in log.read_text() for log in logs) == 1
        (ended,) = [process for process in processes if process.poll() is not None]
        assert ended.returncode == 1
        text = logs[processes.index(ended)].read_text()
        assert ("has the pid file" if left != "socket" else "another program listens there") in text
        (living,) = [process for process in processes if process.poll() is None]
        if left != "socket":
            assert (tmp_path / "twistd.pid").read_text() == f"{living.pid}\n"


def test_in_the_background_the_pid_file_has_the_number_of_the_daemon_and_its_lock(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, tcp("http", port))
    command = [installed("twistd"), "pushd", "--config", "pushd.ini"]
    run = {"cwd": tmp_path, "env": environment(tmp_path), "capture_output": True, "text": True, "timeout": 30}
    pidfile = tmp_path / "twistd.pid"
    done = subprocess.run(command, **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done
    pid = int(pidfile.read_text())
    try:
        assert request(f"http://127.0.0.1:{port}/healthz").status == 200
        again = subprocess.run(command, **run)  # type: ignore[call-overload]
        assert again.returncode == 1
        assert f"another pushd, process {pid}, has the pid file {pidfile}; " in again.stderr
    finally:
        os.kill(pid, SIGTERM)
    eventually(lambda: not pidfile.exists(), "it has ended")
