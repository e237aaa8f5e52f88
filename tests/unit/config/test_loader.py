"""The configuration: what is read, what is refused, what is printed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.patterns import Pattern
from pushd.config.access import Auth, Key, Proxies
from pushd.config.channel_rules import ChannelOverride, ChannelRules, ChannelSettings
from pushd.config.hooks import Hooks
from pushd.config.limits import Limits
from pushd.config.loader import default, parse, parse_bytes, print_config, state_directory
from pushd.config.options import SECTIONS
from pushd.config.settings import Config, Http2, Listener, Log, PushList, Site
from pushd.errors import BadRequest, ConfigError

HTTP = Listener("http", "tcp:8080:interface=127.0.0.1")
HTTPS = Listener("https", "tcp:8443:interface=127.0.0.1", tls=True)


class ConfigCase(SynchronousTestCase):
    def assert_refuses(self, text: str, message: str) -> None:
        error = self.assertRaises(ConfigError, parse, text, "pushd.ini")
        self.assertEqual(str(error), f"pushd.ini: {message}")

    def assert_refuses_with(self, text: str, *parts: str) -> None:
        message = str(self.assertRaises(ConfigError, parse, text, "pushd.ini"))
        for part in parts:
            self.assertIn(part, message)


NO_HOOKS = Hooks(
    before_connect=None,
    before_subscribe=None,
    before_publish=None,
    after=None,
    after_events=frozenset({"connect", "disconnect", "occupied", "subscribe", "unsubscribe", "vacated"}),
    secret=None,
    secret_file=None,
    timeout_s=2,
    questions=1000,
    when_down="deny",
    retry_for_s=300,
    queue=30000,
    breaker_failures=5,
    breaker_pause_s=5,
)


class DefaultTests(ConfigCase):
    def test_an_empty_file_has_the_documented_defaults(self) -> None:
        expected = Config(
            state_directory=None,
            store="sqlite",
            durability="process",
            store_size_bytes=2**30,
            store_memory_bytes=2**26,
            stop_timeout_s=5,
            listeners=(HTTP, HTTPS),
            site=Site(root=None, demo=True, early_hints=False, strict_transport_s=0),
            http2=Http2(websocket=False),
            pushes=(),
            channels=ChannelRules(ChannelSettings(100, 2**26, 3600, "close")),
            limits=Limits(
                event_size_bytes=1000 * 1024,
                batch_size_bytes=2**24,
                bodies_bytes=2**28,
                outbox_bytes=2**20,
                connections=0,
                connections_per_address=1000,
                connections_per_user=100,
                share_percent=10,
                connect_rate=300,
                connect_burst=1000,
                read_rate=2000,
                read_burst=4000,
                publish_rate=0,
                publish_burst=1000,
                command_rate=100,
                command_burst=1000,
                channels_per_event=100,
                channels=100000,
                subscriptions=100,
                heartbeat_s=20,
                ping_timeout_s=20,
                poll_timeout_s=20,
                retry_s=2,
                reconnect_spread_s=5,
                request_timeout_s=60,
                head_timeout_s=10,
                body_rate_bytes=1024,
                answers_bytes=2**28,
                answer_rate_bytes=1024,
            ),
            auth=Auth(
                frozenset({"operator", "publish", "subscribe"}),
                (),
                (),
                frozenset({"publish", "subscribe"}),
                (),
                (),
                cookie=None,
                leeway_s=10,
                hosts=(),
                origins=(),
            ),
            keys=(),
            proxies=Proxies((), "x-forwarded-for"),
            hooks=NO_HOOKS,
            log=Log("info", "auto", False),
        )
        self.assertEqual(default(), expected)

    def test_a_section_without_options_changes_nothing(self) -> None:
        text = "".join(f"[{section.name}]\n" for section in SECTIONS if section.parameter is None)
        self.assertEqual(parse(text, "x"), default())


class ValueTests(ConfigCase):
    def test_values_are_read_by_their_kinds(self) -> None:
        config = parse("[limits]\noutbox = 64KiB\nheartbeat = 1m\nchannels = 7\n[log]\nrequests = on\n", "x")
        self.assertEqual(config.limits.outbox_bytes, 65536)
        self.assertEqual(config.limits.heartbeat_s, 60.0)
        self.assertEqual(config.limits.channels, 7)
        self.assertTrue(config.log.requests)

    def test_every_way_to_say_yes_and_no(self) -> None:
        for text, value in {
            "yes": True,
            "true": True,
            "on": True,
            "no": False,
            "false": False,
            "off": False,
        }.items():
            self.assertEqual(parse(f"[log]\nrequests = {text}", "x").log.requests, value)

    def test_a_path_is_taken_as_it_is_written(self) -> None:
        for path in ["/srv/www", "a b", "50%", "$HOME", "~/x", "#1", "a=b", '"q"', "[x]"]:
            self.assertEqual(parse(f"[site]\nroot = {path}", "x").site.root, path)

    def test_an_error_names_file_section_option_value_and_what_was_wanted(self) -> None:
        self.assert_refuses(
            "[limits]\noutbox = 12 parsecs",
            "[limits] outbox = 12 parsecs: wanted a size such as 64KiB, 1MiB or 1000, from 1KiB to 64GiB",
        )
        self.assert_refuses("[log]\nrequests = maybe", "[log] requests = maybe: wanted yes or no")
        self.assert_refuses(
            "[log]\nlevel = INFO", "[log] level = INFO: wanted one of debug, info, warn, error, critical"
        )
        self.assert_refuses(
            "[channels]\nhistory_size = -1",
            "[channels] history_size = -1: wanted a whole number from 0 to 1000000000",
        )

    def test_limits_have_least_values(self) -> None:
        for said in [
            *("event_size = 0", "batch_size = 0", "outbox = 1023", "channels = 0", "subscriptions = 0"),
            "channels_per_event = 0",
            *("heartbeat = 999ms", "ping_timeout = 0", "poll_timeout = 0", "retry = 0", "request_timeout = 0"),
        ]:
            self.assert_refuses_with(f"[limits]\n{said}", f"[limits] {said}: wanted ", " from 1")

    def test_limits_have_greatest_values(self) -> None:
        for said in ["outbox = 999999GB", "channels = 99999999999", "heartbeat = 8d", "retry = 999999999999999d"]:
            self.assert_refuses_with(f"[limits]\n{said}", f"[limits] {said}: wanted ")

    def test_a_batch_can_hold_the_largest_event(self) -> None:
        self.assert_refuses(
            "[limits]\nevent_size = 32MiB",
            "[limits] batch_size = 16MiB: wanted at least event_size, which is 32MiB",
        )
        self.assert_refuses(
            "[limits]\nbatch_size = 32MiB",
            "[limits] bodies = 256MiB: wanted at least 320MiB, so that share, 10%, holds one batch_size of 32MiB",
        )
        self.assertEqual(parse("[limits]\nbatch_size = 32MiB\nshare = 20%", "x").limits.share_percent, 20)
        self.assertEqual(parse("[limits]\nevent_size = 16MiB", "x").limits.event_size_bytes, 2**24)

    def test_a_comment_after_a_value_is_refused(self) -> None:
        self.assert_refuses("[log]\nrequests = no ; thanks", "[log] requests = no ; thanks: wanted yes or no")

    def test_what_goes_with_a_page(self) -> None:
        config = parse("[push:/]\nresources = /a.css, /b.js?v=1,\n  /a.css\n[push:/x,y]\nresources =\n", "x")
        self.assertEqual(config.pushes, (PushList("/", ("/a.css", "/b.js?v=1")), PushList("/x,y", ())))
        self.assert_refuses("[push:index]\nresources = /a", "[push:index]: wanted a path such as / or /index.html")
        self.assert_refuses("[push://x/]\nresources = /a", "[push://x/]: wanted a path such as / or /index.html")
        self.assert_refuses("[push:/]", "[push:/] resources is not said: wanted paths such as /style.css, /app.js")
        wanted = "wanted paths such as /style.css or /app.js, separated by commas, or nothing"
        for wrong in "a.css", "//x/a.css", "https://x/a.css", "/a b":
            self.assert_refuses(f"[push:/]\nresources = {wrong}", f"[push:/] resources = {wrong}: {wanted}")

    def test_an_indented_line_is_not_swallowed(self) -> None:
        self.assert_refuses("[site]\nroot = /srv\n demo = no", "[site] root = /srv\\ndemo = no: wanted a path")
        self.assert_refuses_with(
            "[log]\nrequests = no\n  [site]\n", "[log] requests = no\\n[site]: wanted yes or no"
        )

    def test_a_long_value_is_cut_short_in_the_message(self) -> None:
        message = str(self.assertRaises(ConfigError, parse, f"[log]\nlevel = {'x' * 10000}", "pushd.ini"))
        self.assertLess(len(message), 300)


class NameTests(ConfigCase):
    def test_an_unknown_option_is_refused_with_the_nearest_name(self) -> None:
        self.assert_refuses(
            "[limits]\nout_box = 3", "[limits] out_box = 3: there is no such option: did you mean outbox?"
        )
        self.assert_refuses("[log]\nLevel = x", "[log] Level = x: there is no such option: did you mean level?")

    def test_an_unknown_option_like_no_other_is_refused_with_all_names(self) -> None:
        self.assert_refuses(
            "[log]\nzzz = 3", "[log] zzz = 3: there is no such option: expected one of level, format, requests"
        )

    def test_an_unknown_section_is_refused_with_the_nearest_name(self) -> None:
        self.assert_refuses("[limit]", "[limit]: there is no such section: did you mean [limits]?")
        self.assert_refuses("[Log]", "[Log]: there is no such section: did you mean [log]?")
        self.assert_refuses("[listen]", "[listen]: there is no such section: did you mean [listen:NAME]?")
        self.assert_refuses(
            "[chanels:a]", "[chanels:a]: there is no such section: did you mean [channels:PATTERN]?"
        )
        self.assert_refuses("[log:a]", "[log:a]: there is no such section: did you mean [log]?")

    def test_default_is_an_unknown_section(self) -> None:
        self.assert_refuses_with(
            "[DEFAULT]\nlevel = info", "[DEFAULT]: there is no such section: expected one of ["
        )

    def test_an_error_of_the_notation_names_file_and_line(self) -> None:
        self.assert_refuses("[log]\nlevel", "line 2: level: wanted option = value")


class ListenerTests(ConfigCase):
    def test_a_listener_of_the_file_replaces_the_built_in_ones(self) -> None:
        config = parse("[listen:b]\nendpoint = unix:/b\n[listen:a]\nendpoint = unix:/a\n", "x")
        self.assertEqual(config.listeners, (Listener("b", "unix:/b"), Listener("a", "unix:/a")))

    def test_tls_without_files_is_self_signed(self) -> None:
        config = parse("[listen:a]\nendpoint = unix:/a\ntls = yes", "x")
        self.assertEqual(config.listeners, (Listener("a", "unix:/a", tls=True),))

    def test_certificate_and_key_come_together(self) -> None:
        text = "[listen:a]\nendpoint = unix:/a\ntls = yes\n"
        self.assert_refuses(f"{text}key = /k", "[listen:a] key = /k: wanted certificate with it")
        self.assert_refuses(f"{text}certificate = /c", "[listen:a] certificate = /c: wanted key with it")
        config = parse(f"{text}key = /k\ncertificate = /c", "x")
        self.assertEqual(config.listeners, (Listener("a", "unix:/a", True, "/c", "/k"),))

    def test_a_certificate_needs_tls(self) -> None:
        text = "[listen:a]\nendpoint = unix:/a\ncertificate = /c\nkey = /k"
        self.assert_refuses(text, "[listen:a] certificate = /c: wanted tls = yes with it")

    def test_an_authority_of_clients_needs_tls(self) -> None:
        text = "[listen:a]\nendpoint = unix:/a\nclient_ca = /ca\n"
        self.assert_refuses(text, "[listen:a] client_ca = /ca: wanted tls = yes with it")
        listener = parse(f"{text}tls = yes\nclient_certificate = optional", "x").listeners[0]
        self.assertEqual((listener.client_ca, listener.client_certificate), ("/ca", "optional"))

    def test_headers_of_proxies_need_proxies(self) -> None:
        text = "[auth]\nanonymous =\n[listen:a]\nendpoint = unix:/a\nproxy_protocol = yes\n"
        self.assert_refuses(
            text,
            "[listen:a] proxy_protocol = yes: wanted the addresses of the proxies with it, in [proxies] trusted",
        )
        self.assertTrue(parse(f"{text}[proxies]\ntrusted = unix", "x").listeners[0].proxy_protocol)

    def test_an_endpoint_must_be_said(self) -> None:
        self.assert_refuses_with("[listen:a]\ntls = yes", "[listen:a] endpoint is not said: wanted")
        self.assert_refuses_with("[listen:a]\nendpoint =", "[listen:a] endpoint =: wanted a Twisted endpoint")

    def test_an_endpoint_that_cannot_be_read_is_refused(self) -> None:
        for endpoint in ["8080", "tcp:http", "tcp", "tcp:80\\", "tcp:80\n  :interface=127.0.0.1"]:
            self.assert_refuses_with(
                f"[listen:a]\nendpoint = {endpoint}", "[listen:a] endpoint = ", "wanted a Twisted"
            )

    def test_an_ssl_endpoint_is_refused_with_advice(self) -> None:
        self.assert_refuses(
            "[listen:a]\nendpoint = ssl:443:interface=127.0.0.1",
            "[listen:a] endpoint = ssl:443:interface=127.0.0.1: "
            "wanted a tcp: endpoint with tls = yes, certificate and key instead of ssl:",
        )

    def test_a_name_is_of_few_characters(self) -> None:
        for name in ["", "A", "a b", "a" * 33, "a:b", "ä", " a"]:
            self.assert_refuses_with(f"[listen:{name}]\nendpoint = unix:/a", f"[listen:{name}]: wanted a name")
        for name in ["a", "a" * 32, "web_1-x"]:
            self.assertEqual(parse(f"[listen:{name}]\nendpoint = unix:/a", "x").listeners[0].name, name)


class AnonymousTests(ConfigCase):
    OPEN = ("tcp:8080", "tcp:80:interface=0.0.0.0", "tcp6:80", "systemd:domain=INET:name=http", "stdio:")
    LOCAL = ("tcp:8080:interface=localhost", r"tcp6:8080:interface=\:\:1", "unix:/run/pushd")

    def test_everything_is_allowed_while_all_listeners_are_local(self) -> None:
        text = "".join(f"[listen:{i}]\nendpoint = {endpoint}\n" for i, endpoint in enumerate(self.LOCAL))
        self.assertEqual(parse(text, "x").auth.anonymous, {"operator", "publish", "subscribe"})

    def test_one_open_listener_is_enough_to_have_to_say_it(self) -> None:
        for endpoint in self.OPEN:
            text = f"[listen:in]\nendpoint = unix:/x\n[listen:out]\nendpoint = {endpoint}\n[auth]\norigins = *\n"
            self.assert_refuses_with(
                text, f"[listen:out] endpoint = {endpoint}: ", "anonymous = publish, subscribe"
            )

    def test_one_for_operations_is_not_since_nobody_has_rights_there(self) -> None:
        for endpoint in self.OPEN:
            text = f"[listen:in]\nendpoint = unix:/x\n[listen:out]\nendpoint = {endpoint}\nserves = operations\n"
            self.assertEqual(parse(text, "x").auth.anonymous, {"operator", "publish", "subscribe"})

    def test_a_proxy_is_enough_to_have_to_say_it(self) -> None:
        self.assert_refuses(
            "[proxies]\ntrusted = unix, ::1",
            "[proxies] trusted = unix, ::1: others come through a proxy, and [auth] does not say what anybody may "
            "do: wanted anonymous = publish, subscribe to let everyone in, or anonymous = (empty) for no one",
        )
        self.assertEqual(parse("[proxies]\nheader = forwarded", "x").proxies.trusted, ())

    def test_what_is_said_holds_wherever_the_listeners_are(self) -> None:
        said = {"": set(), "publish": {"publish"}, "subscribe,publish": {"publish", "subscribe"}}
        for endpoint in (*self.OPEN, *self.LOCAL):
            for text, anonymous in said.items():
                config = parse(f"[listen:a]\nendpoint = {endpoint}\n[auth]\nanonymous = {text}", "x")
                self.assertEqual(config.auth.anonymous, anonymous)

    def test_an_unknown_right_is_named(self) -> None:
        self.assert_refuses(
            "[auth]\nanonymous = publish, admin",
            "[auth] anonymous = publish, admin: "
            "wanted any of operator, publish, subscribe, separated by commas, or nothing, not 'admin'",
        )


class AuthTests(ConfigCase):
    def test_hosts_and_origins_are_normalised_and_kept_once(self) -> None:
        auth = parse(
            "[auth]\nhosts = B.example:80,a.example, b.example:80\norigins = HTTPS://A:443,\n  *\n", "x"
        ).auth
        self.assertEqual(auth.hosts, ("b.example:80", "a.example"))
        self.assertEqual(auth.origins, ("https://a", "*"))

    def test_the_item_that_is_wrong_is_named(self) -> None:
        self.assert_refuses_with(
            "[auth]\norigins = https://a, https://b/", "[auth] origins = ", ", not 'https://b/'"
        )
        self.assert_refuses_with("[auth]\nhosts = a,, b", "[auth] hosts = a,, b: wanted hosts", ", not ''")
        self.assert_refuses_with("[auth]\nhosts = http://a", "[auth] hosts = http://a: wanted hosts")


class ChannelTests(ConfigCase):
    TEXT = """
[channels:news/**]
history_size = 5
[channels]
history_age = 10m
[channels:news/sport]
history_age = 1m
[channels:*/sport]
history_size = 7
"""

    def test_a_channel_without_an_override_has_the_usual_settings(self) -> None:
        self.assertEqual(
            parse(self.TEXT, "x").channels.settings("other"), ChannelSettings(100, 2**26, 600, "close")
        )

    def test_an_override_leaves_alone_what_it_does_not_say(self) -> None:
        self.assertEqual(
            parse(self.TEXT, "x").channels.settings("news/chess"), ChannelSettings(5, 2**26, 600, "close")
        )

    def test_later_sections_win(self) -> None:
        self.assertEqual(
            parse(self.TEXT, "x").channels.settings("news/sport"), ChannelSettings(7, 2**26, 60, "close")
        )

    def test_0_is_a_value_too(self) -> None:
        rules = parse("[channels:a]\nhistory_size = 0\nhistory_age = 0", "x").channels
        self.assertEqual(rules.settings("a"), ChannelSettings(0, 2**26, 0, "close"))

    def test_an_empty_override_changes_nothing(self) -> None:
        self.assertEqual(
            parse("[channels:a]", "x").channels.settings("a"), ChannelSettings(100, 2**26, 3600, "close")
        )

    def test_a_pattern_that_is_none_is_refused(self) -> None:
        self.assert_refuses_with("[channels:]", "[channels:]: wanted a channel or a pattern: ")
        self.assert_refuses_with(f"[channels:{'a' * 256}]", ": wanted a channel or a pattern: ")
        self.assert_refuses_with("[channels:a\u2028b]", "[channels:a\\u2028b]: wanted a channel or a pattern: ")


class StateDirectoryTests(SynchronousTestCase):
    ENVIRON = {"STATE_DIRECTORY": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h"}

    def assert_is(self, path: str, *without: str, **environ: str) -> None:
        environ = {name: text for name, text in (self.ENVIRON | environ).items() if name not in without}
        self.assertEqual(state_directory(default(), environ), path)

    def test_the_file_comes_first(self) -> None:
        self.assertEqual(state_directory(parse("[pushd]\nstate_directory = /f", "x"), self.ENVIRON), "/f")

    def test_then_systemd_then_xdg_then_home(self) -> None:
        self.assert_is("/s")
        self.assert_is("/x/pushd", "STATE_DIRECTORY")
        self.assert_is("/h/.local/state/pushd", "STATE_DIRECTORY", "XDG_STATE_HOME")

    def test_an_empty_variable_is_as_good_as_none(self) -> None:
        self.assert_is("/h/.local/state/pushd", STATE_DIRECTORY="", XDG_STATE_HOME="")

    def test_the_first_directory_of_systemd_counts(self) -> None:
        self.assert_is("/a", STATE_DIRECTORY="/a:/b")

    def test_a_relative_xdg_directory_does_not_count(self) -> None:
        self.assert_is("/h/.local/state/pushd", "STATE_DIRECTORY", XDG_STATE_HOME="x")

    def test_without_any_the_error_says_what_to_set(self) -> None:
        error = self.assertRaises(ConfigError, state_directory, default(), {})
        self.assertIn("[pushd] state_directory", str(error))


class KeyTests(ConfigCase):
    SECRET = "0123456789abcdef" * 4

    def test_a_key_has_one_source_that_fits_its_algorithm(self) -> None:
        for algorithm, line in [
            ("HS256", f"secret = {self.SECRET[:32]}"),
            ("HS512", f"secret = {self.SECRET}"),
            ("HS384", "secret_file = /a"),
            ("ES256", "public_key_file = /a"),
            ("EdDSA", "jwks_url = https://a.example/keys"),
            ("RS256", "jwks_url = http://localhost:8000/keys"),
        ]:
            (key,) = parse(f"[key:a]\nalgorithm = {algorithm}\n{line}\n", "x").keys
            self.assertEqual((key.name, key.algorithm), ("a", algorithm))

    def test_other_sources_are_refused(self) -> None:
        for algorithm, lines in [
            ("HS256", ""),
            ("HS256", "public_key_file = /a"),
            ("HS256", "jwks_url = https://a.example/keys"),
            ("HS256", f"secret = {self.SECRET}\nsecret_file = /a"),
            ("RS256", f"secret = {self.SECRET}"),
            ("RS256", "secret_file = /a"),
            ("RS256", "public_key_file = /a\njwks_url = https://a.example/keys"),
        ]:
            text = f"[key:a]\nalgorithm = {algorithm}\n{lines}\n"
            self.assert_refuses_with(text, "[key:a] says", "wanted just one of")

    def test_a_secret_is_as_long_as_its_algorithm_wants_and_is_never_shown(self) -> None:
        for algorithm, least in [("HS256", 32), ("HS384", 48), ("HS512", 64)]:
            parse(f"[key:a]\nalgorithm = {algorithm}\nsecret = {self.SECRET[:least]}\n", "x")
            text = f"[key:a]\nalgorithm = {algorithm}\nsecret = {self.SECRET[: least - 1]}\n"
            error = self.assertRaises(ConfigError, parse, text, "x")
            self.assertIn(f"at least {least} bytes", str(error))
            self.assertNotIn(self.SECRET[:20], str(error))
        error = self.assertRaises(ConfigError, parse, "[key:a]\nalgorithm = HS256\nsecret = hush\n hush\n", "x")
        self.assertNotIn("hush", str(error))

    def test_the_algorithm_must_be_said_and_none_is_none(self) -> None:
        self.assert_refuses_with("[key:a]\nsecret_file = /a", "[key:a] algorithm is not said")
        self.assert_refuses_with("[key:a]\nalgorithm = none", "wanted one of HS256")
        self.assert_refuses_with("[key:A]\nalgorithm = HS256", "[key:A]: wanted a name")

    def test_keys_are_fetched_over_tls_or_from_this_machine(self) -> None:
        for url in (
            "http://a.example/keys",
            "ftp://a.example/",
            "https://",
            "https://u:p@a.example/",
            "https://a/#b",
        ):
            text = f"[key:a]\nalgorithm = RS256\njwks_url = {url}\n"
            self.assert_refuses_with(text, "[key:a] jwks_url", "wanted a URL")


class HooksTests(ConfigCase):
    def test_urls_need_one_secret(self) -> None:
        for lines in ("", "secret = whsec_a\nsecret_file = /a\n"):
            text = f"[hooks]\nbefore_publish = http://app.internal:9000/hook\n{lines}"
            self.assert_refuses_with(text, "[hooks] says", "wanted just one of secret and secret_file")

    def test_the_proxies_are_networks(self) -> None:
        text = "[auth]\nanonymous =\n[proxies]\ntrusted = 10.0.0.0/8, 192.0.2.7, ::1, unix\n"
        proxies = parse(text, "x").proxies
        self.assertEqual(proxies.trusted, ("10.0.0.0/8", "192.0.2.7", "::1", "unix"))
        for text in ("10.0.0.1/8", "localhost", "10.0.0.0/33"):
            self.assert_refuses_with(f"[proxies]\ntrusted = {text}\n", "wanted networks")


def durations(least_ms: int = 0, most_ms: int = 604_800_000) -> st.SearchStrategy[float]:
    return st.integers(least_ms, most_ms).map(lambda milliseconds: milliseconds / 1000)


def sizes(least: int = 1) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(least, 2**36), st.integers(0, 26).map(lambda power: least * 2**power))


def is_pattern(text: str) -> bool:
    try:
        Pattern.parse(text)
    except BadRequest:
        return False
    return True


COUNTS = st.integers(1, 10**9)
PRINTING = st.characters(exclude_categories=["Cc", "Cs"])
PATHS = st.one_of(st.none(), st.text(PRINTING, min_size=1).map(str.strip).filter(bool))
TEXTS = PATHS.filter(lambda text: text is None or text.isprintable())
FILES = st.text(PRINTING, min_size=1).map(str.strip).filter(bool)
ENDPOINTS = st.sampled_from([*AnonymousTests.OPEN, *AnonymousTests.LOCAL])
NAMES = st.from_regex(r"[a-z0-9_-]{1,32}", fullmatch=True)
PATTERNS = st.text(min_size=1).filter(is_pattern).map(Pattern.parse)
HISTORY = {
    "history_size": st.integers(0, 10**9),
    "history_bytes": sizes(1024),
    "history_age_s": durations(0, 36500 * 86_400_000),
    "on_overflow": st.sampled_from(["close", "latest"]),
    "presence": st.sampled_from(["operator", "subscribers", "events"]),
}
RATES = st.integers(0, 10**12).map(lambda thousandths: thousandths / 1000)
REACHES = st.lists(
    st.sampled_from(["a", "**", "a/*", "b.**:c"]).map(Pattern.parse), unique_by=lambda it: it.text
).map(tuple)
RIGHTS = st.frozensets(st.sampled_from(["operator", "publish", "subscribe"]))
URLS = st.sampled_from(["https://a.example/x?y=1", "https://[::1]:1/", "http://localhost:80/hook"])
HOSTS = st.lists(st.sampled_from(["a", "b:80", "[::1]", "[::1]:1", "c.example"]), unique=True).map(tuple)
ORIGINS = st.lists(st.sampled_from(["*", "https://a", "http://b:8080", "app://x"]), unique=True).map(tuple)

LISTENERS = st.one_of(
    st.builds(Listener, NAMES, ENDPOINTS, st.booleans()),
    st.builds(
        Listener,
        *(NAMES, ENDPOINTS, st.just(True), FILES, FILES),
        *(st.sampled_from(["everything", "operations"]), FILES),
        *(st.sampled_from(["required", "optional"]), st.booleans()),
    ),
)
OVERRIDES = st.builds(ChannelOverride, PATTERNS, st.fixed_dictionaries({}, optional=HISTORY))
ANY_NUMBER = st.integers(0, 10**9)
MOST_BYTES = 64 * 2**30
LIMITS = st.builds(
    Limits,
    event_size_bytes=sizes(),
    batch_size_bytes=sizes(),
    bodies_bytes=sizes(),
    outbox_bytes=sizes(1024),
    connections=ANY_NUMBER,
    connections_per_address=ANY_NUMBER,
    connections_per_user=ANY_NUMBER,
    share_percent=st.integers(1, 100),
    connect_rate=RATES,
    connect_burst=COUNTS,
    read_rate=RATES,
    read_burst=COUNTS,
    publish_rate=RATES,
    publish_burst=COUNTS,
    command_rate=RATES,
    command_burst=COUNTS,
    channels_per_event=COUNTS,
    channels=COUNTS,
    subscriptions=COUNTS,
    heartbeat_s=durations(1000),
    ping_timeout_s=durations(1000),
    poll_timeout_s=durations(1000),
    retry_s=durations(100),
    reconnect_spread_s=durations(),
    request_timeout_s=durations(1000),
    head_timeout_s=durations(1000),
    body_rate_bytes=sizes(),
    answers_bytes=st.integers(2**20, 2**36),
    answer_rate_bytes=sizes(),
).filter(lambda limits: limits.batch_size_bytes >= limits.event_size_bytes)


def least_bodies(limits: Limits) -> int:
    """What ``bodies`` must be at least, for a share of it to hold one batch."""
    return -(-limits.batch_size_bytes * 100 // limits.share_percent)


LIMITS = LIMITS.filter(lambda limits: least_bodies(limits) <= MOST_BYTES).map(
    lambda limits: replace(limits, bodies_bytes=max(limits.bodies_bytes, least_bodies(limits)))
)
KEYS = st.one_of(
    st.builds(Key, NAMES, st.just("HS256"), st.none(), FILES, issuer=TEXTS, audience=TEXTS),
    st.builds(Key, NAMES, st.sampled_from(["ES256", "EdDSA"]), public_key_file=FILES),
    st.builds(Key, NAMES, st.sampled_from(["RS256", "PS512"]), jwks_url=URLS, issuer=TEXTS),
)
HOOKS = st.builds(
    Hooks,
    *(st.none() | URLS for _ in range(4)),
    st.frozensets(st.sampled_from(sorted(NO_HOOKS.after_events))),
    *(st.none(), FILES),
    *(durations(100, 60_000), st.integers(1, 100_000), st.sampled_from(["deny", "allow"])),
    *(durations(), st.integers(1, 10**7), COUNTS),
    durations(100, 3_600_000),
)
CONFIGS = st.builds(
    Config,
    state_directory=PATHS,
    store=st.sampled_from(["sqlite", "memory"]),
    durability=st.sampled_from(["process", "power"]),
    store_size_bytes=sizes(2**20).filter(lambda size: size <= 2**36),
    store_memory_bytes=sizes(2**20).filter(lambda size: size <= 2**36),
    stop_timeout_s=durations(),
    listeners=st.lists(LISTENERS, min_size=1, max_size=4, unique_by=lambda it: it.name).map(tuple),
    site=st.builds(Site, PATHS, st.booleans(), st.booleans(), durations(0, 3_600_000)),
    pushes=st.lists(
        st.builds(
            PushList,
            st.sampled_from(["/", "/index.html", "/a/b,c;d=%20", "/x:y"]),
            st.lists(st.sampled_from(["/style.css", "/app.js?v=1", "/a/b.mjs"]), max_size=3, unique=True).map(
                tuple
            ),
        ),
        max_size=3,
        unique_by=lambda it: it.path,
    ).map(tuple),
    channels=st.builds(
        ChannelRules,
        st.builds(ChannelSettings, **HISTORY),
        st.lists(OVERRIDES, max_size=4, unique_by=lambda it: it.pattern.text).map(tuple),
    ),
    limits=LIMITS,
    auth=st.builds(
        Auth,
        *(RIGHTS, REACHES, REACHES, RIGHTS, REACHES, REACHES),
        *(st.none() | st.sampled_from(["token", "__Host-t"]), durations(0, 3_600_000), HOSTS, ORIGINS),
    ),
    keys=st.lists(KEYS, max_size=3, unique_by=lambda it: it.name).map(tuple),
    proxies=st.builds(
        Proxies,
        st.lists(st.sampled_from(["unix", "10.0.0.0/8", "192.0.2.1", "fd00::/8"]), unique=True).map(tuple),
        st.sampled_from(["x-forwarded-for", "forwarded", "none"]),
    ),
    hooks=HOOKS,
    log=st.builds(
        Log,
        st.sampled_from(["debug", "info", "warn", "error", "critical"]),
        st.sampled_from(["auto", "text", "json"]),
        st.booleans(),
    ),
).filter(lambda config: config.proxies.trusted or not any(it.proxy_protocol for it in config.listeners))


class PrintTests(SynchronousTestCase):
    @given(CONFIGS)
    def test_what_is_printed_reads_back_equal(self, config: Config) -> None:
        self.assertEqual(parse(print_config(config), "printed"), config)

    def test_secrets_are_not_shown(self) -> None:
        secret = "0123456789abcdef" * 4
        text = (
            f"[key:a]\nalgorithm = HS512\nsecret = {secret}\n"
            f"[hooks]\nafter = https://a.example/\nsecret = whsec_{secret}\n"
        )
        config = parse(text, "x")
        self.assertEqual(config.keys[0].secret, secret)
        for shown in (print_config(config), repr(config), str(config)):
            self.assertNotIn(secret, shown)
        self.assertEqual(print_config(config).count("# secret is not shown"), 2)

    def test_values_are_printed_in_their_shortest_form(self) -> None:
        text = "[limits]\nevent_size = 1048576\nheartbeat = 60s\n[log]\nrequests = true\n"
        lines = print_config(parse(text, "x")).splitlines()
        self.assertIn("event_size = 1MiB", lines)
        self.assertIn("heartbeat = 1m", lines)
        self.assertIn("requests = yes", lines)

    def test_an_override_prints_only_what_it_says(self) -> None:
        text = print_config(parse("[channels:a]\nhistory_size = 0\n[channels:b]\n", "x"))
        self.assertIn("[channels:a]\nhistory_size = 0\n\n[channels:b]\n\n[limits]", text)


WORDS = [
    *(f"[{section.name}{':x' if section.parameter else ''}]" for section in SECTIONS),
    *(option.name for section in SECTIONS for option in section.options),
    *("=", " = ", "\n", "\n ", "\r\n", "#", ";", "[", "]", ":", ",", "\\", "%(x)s", "\0", "\u2028", "\ud800"),
    *("yes", "1", "10s", "1MiB", "publish", "tcp:80", "unix:/x", "https://a", "-1", "nan", "**", "9" * 5000),
]
FILE_LINES = print_config(default()).splitlines()


class HostileTests(SynchronousTestCase):
    def assert_answers_or_explains(self, text: str) -> None:
        try:
            config = parse(text, "push\nd.ini")
        except ConfigError as error:
            self.assertTrue(str(error).isprintable(), ascii(str(error)))
            self.assertTrue(str(error).startswith("push\\nd.ini: "))
        else:
            self.assertIsInstance(config, Config)

    @given(st.text())
    def test_any_text_is_a_configuration_or_one_line_of_error(self, text: str) -> None:
        self.assert_answers_or_explains(text)

    @given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=5)), max_size=30).map("".join))
    def test_any_mix_of_its_words_is_a_configuration_or_one_line_of_error(self, text: str) -> None:
        self.assert_answers_or_explains(text)

    @given(st.sampled_from(FILE_LINES), st.text())
    def test_any_value_is_good_or_one_line_of_error(self, line: str, value: str) -> None:
        assume(" =" in line)
        changed = f"{line.partition('=')[0]}= {value}"
        self.assert_answers_or_explains("\n".join(changed if it == line else it for it in FILE_LINES))

    @given(st.permutations(FILE_LINES))
    def test_any_order_of_its_lines_is_a_configuration_or_one_line_of_error(self, lines: list[str]) -> None:
        self.assert_answers_or_explains("\n".join(lines))

    @given(st.binary())
    def test_any_bytes_are_a_configuration_or_one_line_of_error(self, data: bytes) -> None:
        try:
            parse_bytes(b"[site]\nroot = " + data, "pushd.ini")
        except ConfigError as error:
            self.assertTrue(str(error).isprintable())

    def test_bytes_that_are_not_utf_8_are_refused_with_file_and_line(self) -> None:
        error = self.assertRaises(ConfigError, parse_bytes, b"[log]\n\xe4", "pushd.ini")
        self.assertEqual(str(error), "pushd.ini: line 2: the byte 0xe4 is out of place: wanted UTF-8")
