"""The machine of the measurements and the versions installed there."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["build", "certificate", "machine", "versions"]

_HERE = Path(__file__).parent
_PACKAGES = ("Twisted", "autobahn", "pyOpenSSL", "cryptography", "websockets", "aiohttp")


def build(folder: Path) -> None:
    """Compile the load client and the bare C loop into `folder`."""
    compiler = [shutil.which("cc") or "cc", "-O2", "-Wall", "-o"]
    sources = sorted(str(path) for path in (_HERE / "load").glob("*.c"))
    _run([*compiler, str(folder / "load"), *sources, "-lssl", "-lcrypto", "-lm"])
    _run([*compiler, str(folder / "floor"), str(_HERE / "peers" / "floor.c"), "-lcrypto"])


def certificate(folder: Path) -> tuple[Path, Path]:
    """Create the certificate of all servers, with an ECDSA key on P-256; return its path and that of the key."""
    crt, key = folder / "bench.crt", folder / "bench.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    names = ["-days", "30", "-subj", "/CN=localhost"]
    _run(["openssl", "req", "-x509", *curve, "-nodes", *names, "-keyout", str(key), "-out", str(crt)])
    return crt, key


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise OSError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()


def machine() -> dict[str, str]:
    """Return a description of the machine."""
    information = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", information)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": str(information.count("processor\t:")),
        "memory": f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "unknown",
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Return the versions of all programs and libraries involved."""
    found = {"pushd": _said("git", "-C", str(_HERE), "describe", "--always", "--dirty")}
    found["Python"] = f"{platform.python_implementation()} {platform.python_version()}"
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    openssl = _said(sys.executable, "-c", "from OpenSSL import SSL; print(SSL.SSLeay_version(0).decode())")
    found["OpenSSL of pushd"] = openssl
    found["OpenSSL of the system"] = _said("openssl", "version").partition("(")[0].strip()
    found["nginx"] = _said("/usr/sbin/nginx", "-v").rpartition("/")[2]
    found["nchan"] = _said("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan")
    found["Node"] = _said("node", "--version")
    about_ws = _HERE / "peers" / "node_modules" / "ws" / "package.json"
    known = re.search(r'"version": "(.*?)"', about_ws.read_text()) if about_ws.exists() else None
    found["ws"] = known[1] if known else ""
    found["cc"] = _said("cc", "--version").partition("\n")[0]
    return {name: text for name, text in found.items() if text}
