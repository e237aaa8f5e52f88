"""Behind other people's proxies, as ``docs/howto`` has them configured."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.x509 import DNSName
from websockets.asyncio.client import connect
from websockets.typing import Origin

from tests.e2e.daemon import Daemon, free_port, running, tcp, twistd
from tests.e2e.documents import named
from tests.e2e.programs import Program, eventually, lacks, program, talking_to
from tests.rigs.certificates import Authority

pytestmark = pytest.mark.timeout(90)

NAME = "push.example.com"
CLIENT = "127.0.0.2"
"""Where the clients are, so that they are not where the proxy is."""

STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"


@dataclass(frozen=True)
class Front:
    """A proxy with a daemon behind it."""

    daemon: Daemon
    port: int
    """The port of the proxy."""

    authority: str
    """Who issued its certificate."""

    token: str
    """A token that may do everything."""

    by_way: str
    """What the log says beside the client's address."""

    def curl(self, path: str, *arguments: str) -> list[str]:
        """Write a command that asks the proxy, from another address."""
        place = f"{NAME}:{self.port}"
        return [
            program("curl"), "-sS", "--noproxy", "*", "--max-time", "20", "--interface", CLIENT,
            "--resolve", f"{place}:127.0.0.1", "--cacert", self.authority,
            "-H", f"Authorization: Bearer {self.token}", *arguments, f"https://{place}{path}",
        ]  # fmt: skip

    def says(self, path: str, *arguments: str) -> str:
        """Ask the proxy, and answer what comes."""
        done = subprocess.run(self.curl(path, *arguments), capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done
        return done.stdout

    @contextmanager
    def stream(self, path: str, *arguments: str) -> Iterator[Program]:
        """Read a stream as long as the context lasts."""
        with talking_to(self.curl(path, "-N", *arguments)) as reader:
            yield reader

    def publish(self, channel: str, data: str) -> None:
        """Publish by way of the proxy."""
        assert json.loads(self.says(f"/channels/{channel}", "-d", data))["channel"] == channel

    def subscribers(self, channel: str) -> int:
        """Return how many there are."""
        return int(json.loads(self.says(f"/channels/{channel}"))["subscribers"])


def put(text: str, places: Mapping[str, str]) -> str:
    """Put ports and paths of this test into a block; each must be in it."""
    for name, place in places.items():
        assert name in text, f"{name} is not in\n{text}"
        text = text.replace(name, place)
    return text


class Machine:
    """What the pages take to be there: certificates, a secret, and free ports."""

    def __init__(self, directory: Path) -> None:
        authority = Authority()
        self.directory = directory
        self.authority = authority.write(directory, "authority")
        self.certificate, self.key = authority.issue(NAME, purposes=(), names=[DNSName(NAME)]).write(
            directory, "push"
        )
        self.secret = directory / "app.secret"
        self.secret.write_text("s" * 64)
        self.front, self.back = free_port(), free_port()

    @contextmanager
    def pushd(
        self, page: str, name: str, places: Mapping[str, str], more: str = ""
    ) -> Iterator[tuple[Daemon, str]]:
        """Run pushd as a page says, with `more` sections; answer a token, too."""
        places = {"/etc/pushd/private/app.secret": str(self.secret), **places}
        with running(put(named(page, name), places) + "[log]\nrequests = yes\n" + more, listeners="") as daemon:
            arguments = ("--token", "--operator", "--publish", "**", "--subscribe", "**")
            made = twistd("pushd", "--config", str(daemon.config), *arguments, directory=daemon.directory)
            yield daemon, made.stdout.strip()

    @contextmanager
    def nginx(self, text: str, before: str = "") -> Iterator[None]:
        """Run nginx with a configuration."""
        config = self.directory / "nginx.conf"
        paths = f"pid {self.directory}/nginx.pid; error_log {self.directory}/nginx.log;"
        config.write_text(f"{before} user root; daemon off; {paths} events {{ worker_connections 768; }}\n{text}")
        prefix = ("-p", str(self.directory), "-e", f"{self.directory}/nginx.log", "-c", str(config))
        checked = subprocess.run([program("nginx"), *prefix, "-t"], capture_output=True, text=True, timeout=20)
        assert checked.returncode == 0, checked
        with self.proxy([program("nginx"), *prefix]):
            yield

    @contextmanager
    def proxy(self, command: list[str]) -> Iterator[None]:
        """Run a proxy, and wait until it listens."""
        variables = {"HOME": str(self.directory), "PATH": "/usr/sbin:/usr/bin:/bin"}
        with talking_to(command, directory=self.directory, environment=variables) as proxy:
            try:
                eventually(self._listens, "the proxy listens")
                yield
            finally:
                proxy.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    proxy.process.wait(5)

    def _listens(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.front)) == 0


NGINX_HTTP = (
    "http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n"
    "fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n{1}}}\n"
)


@contextmanager
def behind_nginx(machine: Machine) -> Iterator[Front]:
    places = {
        "127.0.0.1:8080": f"127.0.0.1:{machine.back}",
        "443": str(machine.front),
        "/etc/letsencrypt/live/push.example.com/fullchain.pem": machine.certificate,
        "/etc/letsencrypt/live/push.example.com/privkey.pem": machine.key,
    }
    block = put(named("howto/nginx", "nginx-http"), places)
    with (
        machine.pushd("howto/nginx", "pushd-http", {"tcp:8080": f"tcp:{machine.back}"}) as (daemon, token),
        machine.nginx(NGINX_HTTP.format(machine.directory, block)),
    ):
        yield Front(daemon, machine.front, machine.authority, token, " by way of 127.0.0.1:")


@contextmanager
def behind_nginx_stream(machine: Machine) -> Iterator[Front]:
    places = {"127.0.0.1:8443": f"127.0.0.1:{machine.back}", "443;": f"{machine.front};"}
    own = {
        "tcp:8443": f"tcp:{machine.back}",
        "/etc/pushd/private/push.crt": machine.certificate,
        "/etc/pushd/private/push.key": machine.key,
    }
    program("nginx")
    if not Path(STREAM_MODULE).exists():
        lacks("nginx has no stream module; it is in the Debian package libnginx-mod-stream")
    with (
        machine.pushd("howto/nginx", "pushd-stream", own) as (daemon, token),
        machine.nginx(put(named("howto/nginx", "nginx-stream"), places), f"load_module {STREAM_MODULE};"),
    ):
        yield Front(daemon, machine.front, machine.authority, token, ":")


@contextmanager
def behind_caddy(machine: Machine) -> Iterator[Front]:
    places = {
        "127.0.0.1:8080": f"127.0.0.1:{machine.back}",
        f"{NAME} {{": f"https://{NAME}:{machine.front} {{\n    tls {machine.certificate} {machine.key}",
    }
    config = machine.directory / "Caddyfile"
    options = "{\n    admin off\n    auto_https disable_redirects\n    skip_install_trust\n}\n"
    config.write_text(options + put(named("howto/caddy", "caddyfile"), places))
    command = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]
    with (
        machine.pushd("howto/caddy", "pushd-http", {"tcp:8080": f"tcp:{machine.back}"}) as (daemon, token),
        machine.proxy(command),
    ):
        yield Front(daemon, machine.front, machine.authority, token, " by way of 127.0.0.1:")


APACHE_MODULES = "mpm_event authz_core ssl http2 proxy proxy_http socache_shmcb"


HASTE = "[limits]\nheartbeat = 1s\n"
"""Apache finds out that a client has left when there is something to send to it."""


def apache(machine: Machine, text: str) -> list[str]:
    """Write a configuration of Apache; return the command that runs it."""
    loaded = "".join(
        f"LoadModule {it}_module /usr/lib/apache2/modules/mod_{it}.so\n" for it in APACHE_MODULES.split()
    )
    own = f"PidFile {machine.directory}/apache.pid\nErrorLog {machine.directory}/apache.log\nServerName localhost\n"
    config = machine.directory / "apache.conf"
    config.write_text(
        f"{loaded}{own}DefaultRuntimeDir {machine.directory}\nListen 127.0.0.1:{machine.front}\n{text}"
    )
    return [program("apache2"), "-f", str(config), "-D", "FOREGROUND"]


@contextmanager
def behind_apache(machine: Machine) -> Iterator[Front]:
    places = {
        "127.0.0.1:8080": f"127.0.0.1:{machine.back}",
        "*:443": f"*:{machine.front}",
        "/etc/letsencrypt/live/push.example.com/fullchain.pem": machine.certificate,
        "/etc/letsencrypt/live/push.example.com/privkey.pem": machine.key,
    }
    command = apache(machine, put(named("howto/apache", "apache-http"), places))
    with (
        machine.pushd("howto/apache", "pushd-http", {"tcp:8080": f"tcp:{machine.back}"}, HASTE) as (daemon, token),
        machine.proxy(command),
    ):
        yield Front(daemon, machine.front, machine.authority, token, " by way of 127.0.0.1:")


FRONTS = {
    "nginx": behind_nginx,
    "nginx-stream": behind_nginx_stream,
    "apache": behind_apache,
    "caddy": behind_caddy,
}


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with ExitStack() as stack:
        yield stack.enter_context(FRONTS[request.param](Machine(tmp_path_factory.mktemp("behind"))))


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
class TestStreams:
    @pytest.mark.parametrize(("path", "sign"), [("/sse", "data: event"), ("/stream", '"data":')])
    def test_events_come_as_they_are_published(self, front: Front, version: str, path: str, sign: str) -> None:
        with front.stream(f"{path}?channel=live{version}", version) as reader:
            eventually(lambda: front.subscribers(f"live{version}") == 1, "it is subscribed")
            for number in range(3):
                front.publish(f"live{version}", f"event {number}")
                assert f"event {number}" in reader.until(sign)

    def test_who_leaves_is_gone(self, front: Front, version: str) -> None:
        for path in ("/sse", "/stream"):
            with front.stream(f"{path}?channel=left{version}", version):
                eventually(lambda: front.subscribers(f"left{version}") == 1, "it is subscribed")
            eventually(lambda: front.subscribers(f"left{version}") == 0, "it is gone")

    def test_a_large_batch_goes_through(self, front: Front, version: str, tmp_path: Path) -> None:
        batch = tmp_path / "batch"
        batch.write_text(3000 * (json.dumps({"channel": f"batch{version}", "data": "x" * 1000}) + "\n"))
        answer = front.says("/publish", version, "--data-binary", f"@{batch}").splitlines()
        assert len(answer) == 3001
        assert json.loads(answer[-2])["channel"] == f"batch{version}"
        assert json.loads(answer[-1]) == {"summary": {"published": 3000, "duplicate": 0, "refused": 0}}


class TestWebSocket:
    def test_it_works_both_ways_from_a_page_of_that_name(self, front: Front) -> None:
        asyncio.run(self._talk(front))
        eventually(lambda: front.subscribers("ws") == 0, "it is gone")

    async def _talk(self, front: Front) -> None:
        place = f"{NAME}:{front.port}"
        context = ssl.create_default_context(cafile=front.authority)
        raw = socket.create_connection(("127.0.0.1", front.port), 10, (CLIENT, 0))
        raw.setblocking(False)
        url = f"wss://{place}/ws?channel=ws&access_token={front.token}"
        async with connect(url, sock=raw, ssl=context, origin=Origin(f"https://{place}"), proxy=None) as client:
            assert json.loads(await client.recv())["type"] == "subscribed"
            await client.send(json.dumps({"type": "publish", "channel": "ws", "data": "both"}))
            assert {json.loads(await client.recv())["type"] for _ in range(2)} == {"event", "published"}


class TestAddress:
    def test_the_log_shows_where_the_client_is(self, front: Front) -> None:
        front.publish("address", "x")
        eventually(
            lambda: f"201 POST /channels/address from {CLIENT}{front.by_way}" in front.daemon.log, "it is there"
        )

    def test_it_is_not_where_the_client_says_that_it_is(self, front: Front) -> None:
        front.says("/channels/liar", "-H", "X-Forwarded-For: 203.0.113.7", "-H", "Forwarded: for=203.0.113.7")
        line = f" GET /channels/liar from {CLIENT}{front.by_way}"
        eventually(lambda: line in front.daemon.log, "it is in the log")

    def test_other_names_and_pages_are_refused(self, front: Front) -> None:
        assert '"status":403' in front.says("/channels/other", "-H", "Origin: https://elsewhere.example")


def test_server_push_comes_as_far_as_http_2_does(front: Front) -> None:
    """curl, as browsers do, takes no pushes; but then it was asked for."""
    status = 409 if front.by_way == ":" else 505
    assert f'"status":{status}' in front.says("/push?channel=push", "--http2")


@pytest.mark.parametrize("front", ["caddy"], indirect=True)
def test_who_subscribes_while_pushd_restarts_waits(front: Front) -> None:
    front.daemon.stop()
    with front.stream("/sse?channel=restart", "--fail") as reader:
        front.daemon.start()
        assert reader.until("id: ")


SITE = "www.example.com"
OPEN = "[proxies]\ntrusted = 127.0.0.1\n[auth]\nanonymous = publish, subscribe\nhosts = www.example.com\n"


def nginx_subpath(machine: Machine) -> AbstractContextManager[None]:
    front = put(named("howto/nginx", "nginx-http"), {"127.0.0.1:8080": f"127.0.0.1:{machine.back}"})
    shared = front[: front.index("server {\n    listen")]
    site = f"server {{ listen 127.0.0.1:{machine.front}; {named('howto/nginx', 'nginx-subpath')} }}\n"
    return machine.nginx(NGINX_HTTP.format(machine.directory, shared + site))


def apache_subpath(machine: Machine) -> AbstractContextManager[None]:
    text = put(named("howto/apache", "apache-subpath"), {"127.0.0.1:8080": f"127.0.0.1:{machine.back}"})
    return machine.proxy(apache(machine, text))


def caddy_subpath(machine: Machine) -> AbstractContextManager[None]:
    places = {"127.0.0.1:8080": f"127.0.0.1:{machine.back}", f"{SITE} {{": f"http://{SITE}:{machine.front} {{"}
    config = machine.directory / "Caddyfile"
    config.write_text("{\n    admin off\n}\n" + put(named("howto/caddy", "caddy-subpath"), places))
    return machine.proxy([program("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)])


SUBPATHS = {"nginx": nginx_subpath, "apache": apache_subpath, "caddy": caddy_subpath}


def asks(url: str, *arguments: str) -> str:
    """Run curl against a proxy without TLS, by the name of the site."""
    host, port = SITE, url.split(":")[2].split("/")[0]
    command = [
        program("curl"),
        "-sS",
        "--noproxy",
        "*",
        "--max-time",
        "20",
        "--resolve",
        f"{host}:{port}:127.0.0.1",
    ]
    done = subprocess.run([*command, *arguments, url], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.parametrize("kind", SUBPATHS)
def test_below_a_path_of_another_site_every_channel_is_reached(kind: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with running(OPEN, listeners=tcp("http", machine.back)), SUBPATHS[kind](machine):
        url = f"http://{SITE}:{machine.front}/push"
        name = "chat/room-1"
        published = json.loads(asks(f"{url}/publish?channel={name}&id=one", "-d", "hello"))
        assert (published["channel"], published["offset"]) == (name, 1)
        assert json.loads(asks(f"{url}/history?channel={name}"))["events"][0]["data"] == "hello"
        assert asks(f"{url}/event?channel={name}&id=one") == "hello"
        assert json.loads(asks(f"{url}/channels?channel={name}"))["retained"] == 1
        assert json.loads(asks(f"{url}/presence?channel={name}")).keys() >= {"status"}  # nobody is shown by default
        assert json.loads(asks(f"{url}/poll?channel={name}&since=earliest"))["events"][0]["channel"] == name
        line = json.dumps({"channel": name, "data": "two"})
        assert json.loads(asks(f"{url}/publish", "-d", line))["offset"] == 2
        place = f"{SITE}:{machine.front}"

        async def talk() -> None:
            raw = socket.create_connection(("127.0.0.1", machine.front), 10)
            raw.setblocking(False)
            own = Origin(f"http://{place}")
            async with connect(f"ws://{place}/push/ws?channel={name}", sock=raw, origin=own, proxy=None) as client:
                assert json.loads(await client.recv())["channel"] == name

        asyncio.run(talk())


def test_what_operating_says_of_nginx_is_right(tmp_path: Path) -> None:
    """The pages of pushd are its own at every port of the proxy."""
    machine = Machine(tmp_path)
    own = put(
        named("operating", "pushd-proxy"),
        {"/run/pushd/http.sock": f"{tmp_path}/s", "subscribe": "publish, subscribe"},
    )
    text = put(
        named("operating", "nginx-proxy"),
        {"/run/pushd/http.sock": f"{tmp_path}/s", "listen 80": f"listen 127.0.0.1:{machine.front}"},
    )
    with running(own, listeners="", starts=False) as daemon, machine.nginx(NGINX_HTTP.format(tmp_path, text)):
        daemon.launch()
        eventually(lambda: "pushd listens at" in daemon.log, "it listens")
        place = f"{NAME}:{machine.front}"
        command = [program("curl"), "-sS", "--noproxy", "*", "--resolve", f"{place}:127.0.0.1"]
        for origin, status in ((f"http://{place}", "201"), (f"http://{NAME}", "403")):
            arguments = ("-o", "/dev/null", "-w", "%{http_code}", "-H", f"Origin: {origin}", "-d", "x")
            done = subprocess.run(
                [*command, *arguments, f"http://{place}/channels/c"], capture_output=True, text=True, timeout=30
            )
            assert done.stdout == status, (origin, done)
