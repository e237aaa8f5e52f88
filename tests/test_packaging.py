"""What is in the wheel, and what it does to the Twisted that it is installed beside."""

from __future__ import annotations

import email
import re
import subprocess
from email.message import Message
from functools import cache
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.e2e.daemon import REPOSITORY, environment, new_venv, pip, source, wheel

pytestmark = pytest.mark.timeout(300)


@cache
def names() -> frozenset[str]:
    """Return the paths of the files in the wheel, without its metadata."""
    with ZipFile(wheel()) as archive:
        return frozenset(name for name in archive.namelist() if ".dist-info/" not in name)


@cache
def metadata() -> Message:
    """Return its metadata."""
    with ZipFile(wheel()) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(path))


class TestWheel:
    """The wheel itself."""

    def test_it_has_every_module_of_pushd_and_nothing_else_of_python(self) -> None:
        there = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "pushd").rglob("*.py")}
        assert {name for name in names() if name.endswith(".py")} == there | {"twisted/plugins/pushd_plugin.py"}

    def test_it_has_the_files_of_the_demo_page(self) -> None:
        files = REPOSITORY / "pushd" / "api" / "demo" / "static"
        there = {path.relative_to(REPOSITORY).as_posix() for path in files.iterdir()}
        assert {name for name in names() if name.startswith("pushd/api/demo/static/")} == there
        assert {"pushd/api/demo/static/index.html", "pushd/api/demo/static/demo.js"} <= there

    def test_it_has_the_description_that_is_served(self) -> None:
        with ZipFile(wheel()) as archive:
            shipped = archive.read("pushd/api/openapi.yaml")
        assert shipped == (REPOSITORY / "docs" / "openapi.yaml").read_bytes()

    def test_it_says_that_it_is_typed(self) -> None:
        assert "pushd/py.typed" in names()

    def test_it_has_only_the_plugin_below_twisted(self) -> None:
        """An ``__init__.py`` would overwrite one of Twisted's own."""
        assert {name for name in names() if name.startswith("twisted/")} == {"twisted/plugins/pushd_plugin.py"}

    def test_it_has_no_tests(self) -> None:
        assert {name.partition("/")[0] for name in names()} == {"pushd", "twisted"}

    def test_it_is_for_python_3_11_and_later(self) -> None:
        assert str(metadata()["Requires-Python"]) == ">=3.11"
        classifiers = metadata().get_all("Classifier", [])
        versions = {it.rpartition(" ")[2] for it in classifiers if re.search(r"Python :: 3\.\d+$", it)}
        assert versions == {"3.11", "3.12", "3.13", "3.14", "3.15"}

    def test_what_it_needs_has_lower_bounds(self) -> None:
        wanted = [str(it) for it in metadata().get_all("Requires-Dist", [])]
        needed = {
            it.partition(">=")[0].strip().lower().replace("_", "-"): it for it in wanted if "extra ==" not in it
        }
        assert {"twisted", "autobahn", "pyopenssl", "service-identity"} <= set(needed)
        assert all(">=" in it for it in wanted), wanted

    def test_it_has_a_license_and_a_description(self) -> None:
        assert metadata()["License-File"] == "LICENSE"
        assert metadata()["Description-Content-Type"] == "text/x-rst"
        assert len(str(metadata().get_payload()).strip()) > 100


def run(programs: Path, program: str, *arguments: str, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of a virtual environment in a directory that has nothing to do with it."""
    elsewhere.mkdir(exist_ok=True)
    return subprocess.run(
        [str(programs / program), *arguments],
        cwd=elsewhere,
        env=environment(elsewhere),
        capture_output=True,
        text=True,
        timeout=60,
    )


def commands(programs: Path, elsewhere: Path) -> set[str]:
    """Return the commands that twistd knows; it must say them without complaints."""
    done = run(programs, "twistd", "--help", elsewhere=elsewhere)
    assert (done.returncode, done.stderr) == (0, ""), done
    return set(re.findall(r"^    (\w[\w-]*) ", done.stdout.partition("Commands:")[2], re.M))


class TestInstallation:
    """The way of a user: in, used, and out again."""

    @pytest.mark.parametrize("kind", ["wheel", "editable"])
    def test_it_comes_and_goes_and_leaves_twistd_whole(self, kind: str, tmp_path: Path) -> None:
        programs, elsewhere = new_venv(tmp_path / "venv"), tmp_path / "elsewhere"
        what = [str(wheel())] if kind == "wheel" else ["-e", str(source(tmp_path / "src"))]
        pip("install", *what, into=programs)
        with_pushd = commands(programs, elsewhere)
        assert "pushd" in with_pushd
        done = run(programs, "twistd", "-n", "pushd", "--check", elsewhere=elsewhere)
        assert (done.returncode, done.stderr) == (0, ""), done
        done = run(programs, "python", "-c", "import pushd; print(pushd.__file__)", elsewhere=elsewhere)
        place = tmp_path / ("venv" if kind == "wheel" else "src")
        assert Path(done.stdout.strip()).is_relative_to(place), done

        pip("uninstall", "--yes", "pushd", into=programs)
        without = commands(programs, elsewhere)
        assert without == with_pushd - {"pushd"}
        assert "web" in without

    def test_its_dependencies_fit_together(self, tmp_path: Path) -> None:
        programs = new_venv(tmp_path / "venv")
        pip("install", str(wheel()), into=programs)
        pip("check", into=programs)
