"""How the clients come to a server: proxies of the environment, addresses, keys, and what is said where it fails."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator

import httpx2
import pytest
import trustme

import hypclip.client as c
from hypclip.client.proxies import is_loopback, proxy_for
from tests.support.client import BOTH, MODEL, Script, answer, clients, error
from tests.support.search import unchecked

VARIABLES = [f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "NO")]
CLOSED = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def environment(monkeypatch):
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@contextlib.contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Answer connections by a function, in a thread; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def loop() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    handle(connection)

        thread = threading.Thread(target=loop)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def saying(content: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(content)

    return handle


def http(body: object) -> bytes:
    content = answer(body=body).content
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(content), content)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # and never listens
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def failure(kind, url: str, **options) -> str:
    """What the clients say of a server that cannot be asked."""
    client = kind(base_url=url, retries=0, **options)
    try:
        with pytest.raises(c.NoAnswer) as caught:
            client.model()
    finally:
        client.close()
    assert "secret" not in str(caught.value)
    return str(caught.value)


# Proxies --------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1"])
def test_a_server_on_this_machine_is_never_asked_through_a_proxy(kind, host, environment):
    with closed_port() as port:
        proxy = f"http://127.0.0.1:{port}"
        environment(HTTP_PROXY=proxy, http_proxy=proxy, ALL_PROXY="socks5://127.0.0.1:1", HTTPS_PROXY=proxy)
        with listening(saying(http(MODEL))) as server:
            client = kind(base_url=f"http://{host}:{server}", retries=0)
            assert client.model().model == "m"
            client.close()


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.10", "127.1")),
        *((host, True) for host in ("::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "2130706433")),
        *((host, False) for host in ("localhost.example.com", "10.0.0.1", "128.0.0.1", "notlocalhost", "::2", "8", "")),
    ],
)
def test_which_hosts_are_this_machine(host, loops):
    assert is_loopback(host) is loops


@BOTH
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_another_server_is_asked_through_the_proxy(kind, name, environment):
    asked = []

    def handle(connection: socket.socket) -> None:
        asked.append(connection.recv(65536).split(b"\r\n")[0])
        connection.sendall(http(MODEL))

    with listening(handle) as port:
        environment(**{name: f"http://user:secret@127.0.0.1:{port}"})
        client = kind(base_url="http://server.test:8000", retries=0)
        assert client.model().model == "m"
        client.close()
    assert asked == [b"GET http://server.test:8000/model HTTP/1.1"]


@BOTH
def test_a_proxy_that_is_not_there_is_named(kind, environment):
    with closed_port() as port:
        environment(ALL_PROXY=f"http://user:secret@127.0.0.1:{port}")
        said = failure(kind, "http://server.test:8000")
    assert f"GET /model at server.test:8000 through the proxy http://127.0.0.1:{port} (ALL_PROXY): ConnectError" in said
    assert said.endswith("does the proxy work? To do without it, put server.test into NO_PROXY")
    assert "is the server running" not in said


@BOTH
def test_a_proxy_that_refuses_is_named(kind, environment):
    with listening(saying(CLOSED)) as port:
        environment(HTTP_PROXY=f"http://user:secret@127.0.0.1:{port}", HTTPS_PROXY=f"127.0.0.1:{port}")
        said = failure(kind, "https://server.test")
        assert f"through the proxy http://127.0.0.1:{port} (HTTPS_PROXY): ProxyError: 407" in said
        client = kind(base_url="http://server.test", retries=0)
        with pytest.raises(c.InvalidRequest, match=rf"407 http_error: .*through the proxy http://127.0.0.1:{port} "):
            client.model()
        client.close()


@BOTH
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks_without_its_library_is_a_named_error(kind, scheme, environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    environment(ALL_PROXY=f"{scheme}://user:secret@127.0.0.1:1080")
    with pytest.raises(
        c.UnusableProxy, match=rf"{scheme}://127.0.0.1:1080 \(ALL_PROXY\) needs .*httpx2\[socks\]"
    ) as caught:
        kind(base_url="http://server.test")
    assert "secret" not in str(caught.value)
    assert "put server.test into NO_PROXY" in str(caught.value)
    kind(base_url="http://127.0.0.1:8000").close()


@BOTH
@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        (
            "socks://user:secret@proxy:1080",
            r"the proxy socks://proxy:1080 \(ALL_PROXY\) is of a kind that is not spoken",
        ),
        ("ftp://user:secret@proxy", "expected http, https, socks5, socks5h"),
        ("http://user:secret@proxy:port", "ALL_PROXY is no address of a proxy"),
        ("http://", "ALL_PROXY is no address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_work_is_named(kind, proxy, message, environment):
    environment(ALL_PROXY=proxy)
    with pytest.raises(ValueError, match=message) as caught:
        kind(base_url="http://server.test")
    assert type(caught.value) is c.UnusableProxy
    assert "secret" not in str(caught.value)


@BOTH
def test_a_transport_of_ones_own_knows_no_proxies(kind, environment):
    environment(ALL_PROXY="socks://nonsense")
    with clients() as connect:
        assert connect(kind, Script(answer(body=MODEL)), base_url="http://server.test").model().model == "m"


@pytest.mark.parametrize(
    ("no_proxy", "url", "expected"),
    [
        ("", "http://server.test", "http://proxy:1"),
        ("server.test", "http://server.test", None),
        ("other.test, SERVER.test", "http://a.server.test", None),
        (".server.test", "http://a.server.test", None),
        ("*.server.test", "http://a.server.test", None),
        ("server.test", "http://notserver.test", "http://proxy:1"),
        ("server.test:8000", "http://server.test:8000", None),
        ("server.test:8000", "http://server.test:9000", "http://proxy:1"),
        ("server.test:80", "http://server.test", None),
        ("*", "http://server.test", None),
        ("10.0.0.0/8", "http://10.1.2.3:8000", None),
        ("10.0.0.0/8", "http://11.1.2.3:8000", "http://proxy:1"),
        ("10.0.0.0/8", "http://server.test", "http://proxy:1"),
        ("10.1.2.3", "http://10.1.2.3", None),
        ("[fd00::]/8,x", "http://[fd00::1]:8000", None),
        ("", "https://server.test", "http://all:2"),
    ],
)
def test_exceptions_from_the_proxy(no_proxy, url, expected, environment):
    environment(HTTP_PROXY="proxy:1", ALL_PROXY=" http://all:2 ", NO_PROXY=no_proxy)
    proxy = proxy_for(httpx2.URL(url))
    assert (proxy and proxy.url) == expected


def test_blank_settings_are_none(environment):
    environment(HTTP_PROXY="", ALL_PROXY="  ")
    assert proxy_for(httpx2.URL("http://server.test")) is None


# What is said of a server that cannot be asked ------------------------------------------------------------------------


@BOTH
def test_nobody_listens(kind):
    with closed_port() as port:
        assert failure(kind, f"http://127.0.0.1:{port}").endswith("; is the server running there?")


@BOTH
def test_a_name_that_nobody_has(kind, monkeypatch):
    def look_up(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    said = failure(kind, "http://server.test:8000")
    assert said.endswith("; there is no host of the name 'server.test', or names cannot be looked up now")


@pytest.fixture(scope="module")
def certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@BOTH
def test_a_certificate_that_is_not_trusted(kind, certificate):
    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), certificate.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65536)

    with listening(handle) as port:
        said = failure(kind, f"https://127.0.0.1:{port}")
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "its certificate is not trusted here" in said
    assert "SSL_CERT_FILE" in said


@BOTH
def test_https_where_http_is_spoken(kind):
    with listening(saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")) as port:
        said = failure(kind, f"https://127.0.0.1:{port}")
    assert said.endswith(f"speaks no TLS, or another version: is it http://127.0.0.1:{port}?")


@BOTH
def test_what_listens_is_no_http_server(kind):
    with listening(saying(b"220 mail.test ESMTP\r\n\r\n")) as port:
        said = failure(kind, f"http://127.0.0.1:{port}")
    assert said.endswith(f"what answers there is no HTTP server, such as https://127.0.0.1:{port}: is the port right?")
    with listening(saying(b"")) as port:
        said = failure(kind, f"http://127.0.0.1:{port}")
    assert said.endswith("has the server stopped, or is what listens there another one, such as one for https only?")


@BOTH
def test_the_server_takes_too_long(kind):
    ended = threading.Event()
    with listening(lambda _: ended.wait(10) and None) as port:
        said = failure(kind, f"http://127.0.0.1:{port}", timeout_s=0.1)
        ended.set()
    assert "ReadTimeout" in said
    assert said.endswith("the server was reached, and did not finish within timeout_s")


@BOTH
@pytest.mark.parametrize(
    ("trouble", "advice"),
    [
        (httpx2.ConnectTimeout(""), "nothing answers at that address"),
        (httpx2.DecodingError("incorrect header check"), "says that it is compressed, and it is not"),
        (httpx2.ReadError("connection reset"), "the connection was cut; what was asked may have been done"),
        (ssl.SSLError(1, "bad record"), "speaks no TLS, or another version"),
        (OSError(5, "input/output error"), "the connection was cut"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_troubles(kind, trouble, advice):
    with clients() as connect, pytest.raises(c.NoAnswer, match=f"POST /retrieve at server.test: .*{advice}"):
        connect(kind, Script(trouble), base_url="http://server.test", retries=0).retrieve("a dog")


@BOTH
def test_tls_is_not_tried_again(kind, monkeypatch):
    trouble = httpx2.ConnectError("certificate verify failed")
    trouble.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    script = Script(trouble)
    with clients() as connect, pytest.raises(c.NoAnswer, match="certificate is not trusted"):
        connect(kind, script, base_url="https://server.test").model()
    assert len(script.requests) == 1


# Addresses and keys ---------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (" http://server.test:8000\n", "http://server.test:8000/model"),
        ("http://server.test:8000/", "http://server.test:8000/model"),
        ("HTTP://Server.test/prefix", "http://server.test/prefix/model"),
        ("https://server.test/prefix/", "https://server.test/prefix/model"),
        ("http://[::1]:8000", "http://[::1]:8000/model"),
    ],
)
def test_addresses_in_every_spelling(kind, url, asked):
    script = Script(answer(body=MODEL))
    with clients() as connect:
        connect(kind, script, base_url=url).model()
    assert str(script.requests[0].url) == asked


@BOTH
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "not 'localhost:8000': write 'http://localhost:8000'"),
        ("127.0.0.1", "write 'http://127.0.0.1'"),
        ("server.test/prefix", "write 'http://server.test/prefix'"),
        ("ftp://server.test", "base_url must begin with http:// or https://, not 'ftp://server.test'$"),
        ("http://server.test/?key=1", "base_url must end before"),
        ("http://server.test#model", "base_url must end before"),
        ("http://", "base_url must name a host"),
        ("http://server.test:port", "base_url is no valid URL"),
        ("http://server.test:99999999", "a port below 65,536, not 99999999"),
    ],
)
def test_addresses_that_cannot_work(kind, url, message):
    with pytest.raises(ValueError, match=message):
        kind(base_url=url)


@BOTH
def test_a_key_read_from_a_file_may_end_its_line(kind):
    script = Script(answer(body=MODEL))
    with clients() as connect:
        connect(kind, script, api_key="hyp-key\n").model()
    assert script.requests[0].headers["authorization"] == "Bearer hyp-key"


@BOTH
@pytest.mark.parametrize("key", ["", " \n", "se\ncret", "se\x00cret", "sécret", "secret\u200b"])
def test_keys_that_cannot_be_sent_are_refused_without_being_shown(kind, key):
    with pytest.raises(ValueError, match="api_key must be printable ASCII on one line") as caught:
        kind(api_key=key)
    assert "cret" not in str(caught.value)


@BOTH
def test_a_key_that_is_no_string(kind):
    with unchecked(), pytest.raises(TypeError, match="api_key must be a string, not bytes"):
        kind(api_key=b"secret")


@BOTH
def test_another_server_that_answers_is_not_ready(kind):
    """A loop that waits for the server must not end because something else answers 200 at its port."""
    with clients() as connect:
        assert connect(kind, Script(answer(body={"status": "ready"}))).ready() is True
        assert connect(kind, Script(answer(body={"status": "ok"}))).ready() is False
        for body in (None, [], {}):
            with pytest.raises(c.HypclipServerError, match="GET /readyz is not answered as by a hypclip server"):
                connect(kind, Script(answer(body=body))).ready()


@BOTH
def test_a_server_that_sends_on_says_where(kind):
    """As those do that speak https only; a key is not sent to where nobody asked for."""
    script = Script(answer(301, location="https://server.test/model"))
    with (
        clients() as connect,
        pytest.raises(c.HypclipServerError, match=r"it sends on to https://server\.test/model") as caught,
    ):
        connect(kind, script, base_url="http://server.test", api_key="secret").model()
    assert caught.value.status == 301
    assert len(script.requests) == 1


@BOTH
def test_a_proxy_that_answers_itself_is_named(kind, environment):
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n<html/>"
    with listening(saying(page)) as port:
        environment(HTTP_PROXY=f"http://user:secret@127.0.0.1:{port}")
        client = kind(base_url="http://server.test", retries=0)
        through = (
            rf"GET /model through the proxy http://127.0.0.1:{port} \(HTTP_PROXY\) is not answered as by a hypclip"
        )
        with pytest.raises(c.HypclipServerError, match=through):
            client.model()
        client.close()


@BOTH
def test_an_answer_of_the_server_does_not_blame_the_proxy(kind, environment):
    with clients() as connect, pytest.raises(c.InvalidRequest) as caught:
        connect(kind, Script(error(422)), base_url="http://server.test").model()
    assert str(caught.value) == "422 some_type: some message (request r-1)"
