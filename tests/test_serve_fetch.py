import asyncio
import gzip
import http.server
import ipaddress
import os
import socket
import ssl
import threading
import time

import pytest
import trustme

from hypclip.errors import ConfigError
from serve.errors import InvalidImage, LimitExceeded, NotReady
from serve.fetch import Fetcher, FetchFailed, is_public

PICTURE = b"\x89PNG " * 100
OTHER = "forbidden.example"
TRUST_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to read the certificates of the system takes 50 ms


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each path with the method of its name, and notes what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers))
        name, _, self.argument = self.path[1:].partition("/")
        getattr(self, name)()

    def log_message(self, *_):
        pass

    def answer(self, status=200, body=PICTURE, **headers):
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def until_closed(self, *pieces, pause_s=0.0):
        """Write the pieces again and again until the client has gone."""
        self.close_connection = True
        self.server.started.set()
        try:
            while not self.server.stop.wait(pause_s):
                for piece in pieces:
                    self.wfile.write(piece)
        except OSError:
            self.server.gone.set()

    def picture(self):
        self.answer()

    def slow_picture(self):
        with self.server.lock:
            self.server.busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
        time.sleep(0.02)
        with self.server.lock:
            self.server.busy -= 1
        self.answer()

    def chunks(self):
        self.answer(
            body=b"4\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (PICTURE[:4], len(PICTURE) - 4, PICTURE[4:]),
            Content_Length=None,
            Transfer_Encoding="chunked",
        )

    def status(self):
        self.answer(int(self.argument), b"the secret of the intranet")

    def to(self):
        self.answer(302, b"", Location=self.argument, Set_Cookie="a=1; Path=/")

    def nowhere(self):
        self.answer(302, b"")

    def encoded(self):
        self.answer(body=gzip.compress(PICTURE), Content_Encoding=self.argument)

    def transfer_encoded(self):
        self.answer(body=gzip.compress(PICTURE), Content_Length=None, Transfer_Encoding="gzip")

    def no_http(self):
        self.close_connection = True
        self.wfile.write(b"220 mail.example ESMTP\r\n\r\n")

    def silence(self):
        self.close_connection = True

    def no_tls(self):
        """Go on in clear text, in the head of the answer or in its body."""
        self.close_connection = True
        if self.argument == "body":
            self.answer(body=b"x", Content_Length=7)
        with socket.socket(fileno=os.dup(self.connection.fileno())) as clear:
            clear.sendall(b"no record of TLS " * 10)

    def claims(self):
        self.close_connection = True
        self.answer(Content_Length=self.argument)

    def endless(self):
        self.answer(body=b"", Content_Length=None)
        self.until_closed(b"x" * 4096)

    def endless_chunks(self):
        self.answer(body=b"", Content_Length=self.argument, Transfer_Encoding="chunked")
        self.until_closed(b"1000\r\n", b"x" * 4096, b"\r\n")

    def drip(self):
        self.answer(body=b"", Content_Length=1000)
        self.until_closed(b"x", pause_s=0.02)

    def drip_head(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.until_closed(b"x", pause_s=0.02)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.names = [], []
        self.lock, self.busy, self.most_busy = threading.Lock(), 0, 0
        self.started, self.gone, self.stop = threading.Event(), threading.Event(), threading.Event()
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.names.append(name)
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def url(self, path, host="img.test", scheme="http"):
        return f"{scheme}://{host}:{self.server_port}/{path}"

    def __exit__(self, *_):
        self.stop.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class Names:
    """A resolver that knows a few names, and what it was asked for."""

    def __init__(self, **answers):
        self.answers, self.asked = {"img.test": ["127.0.0.1"], OTHER: ["127.0.0.1"], **answers}, []

    async def __call__(self, host, port):
        self.asked.append((host, port))
        return self.answers[host]


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls_server(authority):
    """Start a server with a certificate for the given names."""
    running = []

    def start(*names):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(context)
        running.append(Server(context).__enter__())
        return running[-1]

    yield start
    for each in running:
        each.__exit__()


@pytest.fixture
def trust(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def loopback(address):
    return ipaddress.ip_address(address).is_loopback


def fetch(*urls, hosts, resolve=None, permitted=loopback, max_bytes=100_000, timeout_s=5, tls=TRUST_NOBODY, **rest):
    """Fetch URLs one after the other with one fetcher, and return the last."""

    async def call():
        names = Names() if resolve is None else resolve
        limits = {"max_bytes": max_bytes, "timeout_s": timeout_s}
        fetcher = Fetcher(hosts, resolve=names, permitted=permitted, tls=tls, **limits, **rest)
        try:
            return [await fetcher.fetch(url) for url in urls][-1]
        finally:
            await fetcher.aclose()

    return asyncio.run(call())


def fetch_from(server, path, **rest):
    return fetch(server.url(path), hosts=[f"img.test:{server.server_port}"], **rest)


def test_a_picture_arrives_as_it_is(server):
    assert fetch_from(server, "picture/a?b=%20c#d") == PICTURE
    ((path, headers),) = server.asked
    assert path == "/picture/a?b=%20c"
    assert headers["Host"] == f"img.test:{server.server_port}"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Connection"] == "close"
    assert "Cookie" not in headers
    assert "Authorization" not in headers


def test_chunks(server):
    assert fetch_from(server, "chunks") == PICTURE


def test_the_length_at_the_limit_is_fine(server):
    assert fetch_from(server, "picture", max_bytes=len(PICTURE)) == PICTURE


def test_the_environment_and_netrc_are_ignored(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch_from(server, "picture") == PICTURE
    assert "Authorization" not in server.asked[0][1]


def local_fetcher(server):
    hosts = [f"img.test:{server.server_port}"]
    return Fetcher(hosts, resolve=Names(), permitted=loopback, max_bytes=100_000, timeout_s=60, tls=TRUST_NOBODY)


# Which URLs


def test_without_hosts_every_url_is_refused(server):
    names = Names()
    with pytest.raises(InvalidImage, match=r"no host is allowed .setting HYPCLIP_IMAGE_URL_HOSTS"):
        fetch(server.url("picture"), hosts=[], resolve=names)
    assert names.asked == []
    assert server.asked == []


@pytest.mark.parametrize(
    "entry, url, asked",
    [
        ("a.example", "http://a.example/x", ("a.example", 80)),
        ("a.example", "https://a.example/x", ("a.example", 443)),
        ("a.example", "https://a.example:443/x", ("a.example", 443)),
        ("A.Example.", "HTTP://a.EXAMPLE./x", ("a.example", 80)),
        ("a.example", " http://a.example./x\n", ("a.example", 80)),
        ("a.example:8443", "https://a.example:8443", ("a.example", 8443)),
        ("a.example:443", "https://a.example", ("a.example", 443)),
        ("*.example.com", "http://a.example.com", ("a.example.com", 80)),
        ("*.example.com:81", "http://a.b.example.com:81", ("a.b.example.com", 81)),
        ("bücher.example", "http://xn--bcher-kva.example", ("xn--bcher-kva.example", 80)),
        ("xn--bcher-kva.example", "http://BÜCHER。example", ("xn--bcher-kva.example", 80)),
    ],
)
def test_allowed_urls(entry, url, asked):
    names = Names(**{asked[0]: []})
    with pytest.raises(FetchFailed, match="cannot be resolved"):
        fetch(url, hosts=["other.example", entry], resolve=names)
    assert names.asked == [asked]


@pytest.mark.parametrize(
    "entry, url",
    [
        ("a.example", "http://b.example"),
        ("a.example", "http://b.a.example"),
        ("a.example", "http://a.example.evil.example"),
        ("a.example", "http://evila.example"),
        ("a.example", "http://a.example:8080"),
        ("a.example", "http://a.example:443"),
        ("a.example", "http://a.example:0"),
        ("a.example:8443", "https://a.example"),
        ("*.example.com", "http://example.com"),
        ("*.example.com", "http://evilexample.com"),
        ("*.example.com", "http://a.example.com:81"),
    ],
)
def test_hosts_and_ports_off_the_list(entry, url):
    names = Names()
    with pytest.raises(InvalidImage, match=r"not among the hosts and ports .* HYPCLIP_IMAGE_URL_HOSTS"):
        fetch(url, hosts=[entry], resolve=names)
    assert names.asked == []


@pytest.mark.parametrize(
    "url, message",
    [
        ("ftp://a.example/x", "has to start with http"),
        ("file:///etc/passwd", "has to start with http"),
        ("//a.example/x", "has to start with http"),
        ("", "has to start with http"),
        ("http://user@a.example/x", "user name"),
        ("http://user:password@a.example/x", "user name"),
        ("http://a.example\\@evil.example/x", "user name"),
        ("http://a.example:99999999999x/", "not a valid URL"),
        ("http://a.exam\tple/", "not a valid URL"),
        ("http://a.example/\ud800", "not a valid URL"),
        ("http://a.example/" + "x" * 8192, "longer than 8,192"),
        ("http://a.example/" + "é" * 30_000, "longer than 8,192"),
        ("http://a.example\\.evil.example/", "has to name its host"),
        ("http://%61.example/", "has to name its host"),
        ("http://a..example/", "has to name its host"),
        ("http:///x", "has to name its host"),
    ],
)
def test_urls_that_are_none(url, message):
    names = Names()
    with pytest.raises(InvalidImage, match=message):
        fetch(url, hosts=["a.example"], resolve=names)
    assert names.asked == []


LITERALS = """
    127.0.0.1 8.8.8.8 8.8.8.8. 127.1 2130706433 0x7f000001 0X7F.1 0177.0.0.1 127。0。0。1 [::1] [2606:4700::1111]
    [::ffff:127.0.0.1] [fe80::1%25eth0]
"""


@pytest.mark.parametrize("host", LITERALS.split())
def test_ip_addresses_never_match(host):
    names = Names()
    with pytest.raises(InvalidImage, match=r"IP addresses are refused|not a valid URL"):
        fetch(f"http://{host}/x", hosts=["a.example", "*.0.example"], resolve=names)
    assert names.asked == []


BAD_ENTRIES = """
    * *. *.com *.com. a.*.example *a.example http://a.example a.example/ a.example/x a.example?x user@a.example
    a.example,b.example a..example .a.example a.example: a.example:0 a.example:65536 a.example:http 127.0.0.1
    *.0.0.1 127.1:80 [::1] ::1
"""


@pytest.mark.parametrize("entry", [*BAD_ENTRIES.split(), "", " ", " a.example"])
def test_bad_entries(entry):
    with pytest.raises(ConfigError, match="HYPCLIP_IMAGE_URL_HOSTS has the entry"):
        Fetcher(["a.example", entry], max_bytes=1, timeout_s=1)


# Which addresses


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address):
    assert is_public(address)


NOT_PUBLIC = """
    0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 168.63.129.16 169.254.169.254 172.16.0.1 192.0.0.192
    192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1
    ::8.8.8.8 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:224.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::10.0.0.1
    64:ff9b::169.254.169.254 64:ff9b:1::8.8.8.8 100::1 2001::1 2001:0:4136:e378:8000:63bf:f5ff:fffe 2001:db8::1
    2002:7f00:1:: 2002:808:808:: 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0
    2606:4700::1111%eth0 fec0::1 ff02::1 ff0e::1 a.example 127.1
"""


@pytest.mark.parametrize("address", [*NOT_PUBLIC.split(), ""])
def test_other_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.1.2.3"], ["10.1.2.3", "8.8.8.8"], ["fe80::1%2"]])
def test_one_internal_address_is_enough_to_refuse(server, addresses, caplog):
    with pytest.raises(InvalidImage, match="does not resolve to public addresses only") as caught:
        fetch_from(server, "picture", resolve=Names(**{"img.test": addresses}), permitted=None)
    assert server.asked == []
    assert not any(address in str(caught.value) for address in addresses)
    internal = next(address for address in addresses if address != "8.8.8.8")
    assert internal in caplog.text  # the operator gets to know


def test_the_name_is_asked_for_once_a_hop(server):
    class Rebinding(Names):
        async def __call__(self, host, port):
            await super().__call__(host, port)
            return ["127.0.0.1"] if len(self.asked) == 1 else ["10.0.0.1"]

    names = Rebinding()
    assert fetch_from(server, "picture", resolve=names) == PICTURE
    assert names.asked == [("img.test", server.server_port)]
    names.asked.clear()
    with pytest.raises(InvalidImage, match="does not resolve to public"):
        fetch_from(server, "to//picture", resolve=names)
    assert names.asked == [("img.test", server.server_port)] * 2


def test_an_address_that_cannot_be_connected_to_is_passed_over(server):
    # Nothing listens on 127.0.0.2 at this port.
    assert fetch_from(server, "picture", resolve=Names(**{"img.test": ["127.0.0.2", "127.0.0.1"]})) == PICTURE


def test_no_address_can_be_connected_to(server):
    with pytest.raises(FetchFailed, match="cannot be connected to") as caught:
        fetch_from(server, "picture", resolve=Names(**{"img.test": ["127.0.0.2"]}))
    assert "127" not in str(caught.value)


def test_an_unknown_name():
    async def resolve(host, port):
        raise OSError("Name or service not known by 10.0.0.53")

    with pytest.raises(FetchFailed, match=r"^'a.example' cannot be resolved$"):
        fetch("http://a.example", hosts=["a.example"], resolve=resolve)


def test_the_resolver_of_the_system(server):
    # Without one of the test's own: every system knows this name.
    async def call():
        fetcher = Fetcher([f"localhost:{server.server_port}"], max_bytes=10_000, timeout_s=5, permitted=loopback)
        try:
            return await fetcher.fetch(server.url("picture", host="localhost"))
        finally:
            await fetcher.aclose()

    assert asyncio.run(call()) == PICTURE


# Redirects


@pytest.mark.parametrize("location", ["/picture", "//img.test:{port}/picture", "http://IMG.test.:{port}/picture"])
def test_redirects_are_followed_without_cookies(server, location):
    location = location.format(port=server.server_port)
    assert fetch_from(server, f"to/{location}") == PICTURE
    assert [path for path, _ in server.asked] == [f"/to/{location}", "/picture"]
    assert "Cookie" not in server.asked[1][1]


@pytest.mark.parametrize(
    "location, message",
    [
        ("http://forbidden.example:{port}/picture", "not among the hosts"),
        ("//forbidden.example:{port}/picture", "not among the hosts"),
        ("http://img.test/picture", "not among the hosts"),
        ("http://127.0.0.1:{port}/picture", "IP addresses are refused"),
        ("http://[::1]:{port}/picture", "IP addresses are refused"),
        ("http://169.254.169.254/latest", "IP addresses are refused"),
        ("http://user@img.test:{port}/picture", "user name"),
        ("file:///etc/passwd", "has to start with http"),
        ("http://img.test:x/", "not a valid URL"),
    ],
)
def test_redirects_elsewhere(server, location, message):
    names = Names()
    with pytest.raises(InvalidImage, match=message) as caught:
        fetch_from(server, f"to/{location.format(port=server.server_port)}", resolve=names)
    assert len(server.asked) == len(names.asked) == 1
    assert not any(secret in str(caught.value) for secret in (OTHER, "127", "169.254", "passwd"))


def test_a_redirect_to_an_allowed_name_with_an_internal_address(server):
    port = server.server_port
    with pytest.raises(InvalidImage, match="the host the image URL redirects to does not resolve to public"):
        fetch(
            server.url(f"to/http://inner.test:{port}/picture"),
            hosts=[f"*.inner.test:{port}", f"inner.test:{port}", f"img.test:{port}"],
            resolve=Names(**{"inner.test": ["10.0.0.1"]}),
        )
    assert len(server.asked) == 1


def test_a_redirect_to_nowhere(server):
    with pytest.raises(FetchFailed, match="a redirect to nowhere"):
        fetch_from(server, "nowhere")


def test_as_many_redirects_as_allowed(server):
    assert fetch_from(server, "to//to//picture", max_redirects=2) == PICTURE
    with pytest.raises(FetchFailed, match="redirects more than 1 time"):
        fetch_from(server, "to//to//picture", max_redirects=1)


def test_a_loop_of_redirects_ends(server):
    port = server.server_port
    server.RequestHandlerClass = type(
        "Loop", (Handler,), {"loop": lambda self: self.answer(307, b"", Location="/loop")}
    )
    with pytest.raises(FetchFailed, match="redirects more than 3 times"):
        fetch(server.url("loop"), hosts=[f"img.test:{port}"])
    assert len(server.asked) == 4


# Answers


@pytest.mark.parametrize("status", [201, 203, 206, 300, 304, 400, 401, 404, 500])
def test_a_status_other_than_200(server, status):
    with pytest.raises(FetchFailed, match=f"status {status} in place of an image") as caught:
        fetch_from(server, f"status/{status}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity,gzip", "anything"])
def test_compressed_answers(server, encoding):
    with pytest.raises(FetchFailed, match="compresses its answer"):
        fetch_from(server, f"encoded/{encoding}")


def test_a_compressed_transfer(server):
    with pytest.raises(FetchFailed, match="did not answer in HTTP"):
        fetch_from(server, "transfer_encoded")


@pytest.mark.parametrize("path", ["no_http", "silence", "claims/-1", "claims/x"])
def test_no_http(server, path):
    with pytest.raises(FetchFailed, match="closed the connection or did not answer in HTTP") as caught:
        fetch_from(server, path)
    assert "mail" not in str(caught.value)


def test_a_length_over_the_limit_is_refused_unread(server):
    with pytest.raises(LimitExceeded, match=r"is 100,001, over .* 100,000 \(setting HYPCLIP_MAX_IMAGE_BYTES\)"):
        fetch_from(server, "claims/100001")


def test_a_length_shorter_than_the_body_cuts_it(server):
    assert fetch_from(server, "claims/7") == PICTURE[:7]


def test_a_length_longer_than_the_body(server):
    with pytest.raises(FetchFailed, match="broke off in the middle"):
        fetch_from(server, "claims/5000")


@pytest.mark.parametrize("path", ["endless", "endless_chunks/7"])
def test_an_endless_body_is_cut_off(server, path):
    with pytest.raises(LimitExceeded, match="bytes is over the limit of 100,000"):
        fetch_from(server, path)
    assert server.gone.wait(5)


@pytest.mark.parametrize("path", ["drip", "drip_head"])
def test_dripping_does_not_renew_the_time(server, path):
    started = time.monotonic()
    with pytest.raises(FetchFailed, match=r"longer than the 0.2 s allowed"):
        fetch_from(server, path, timeout_s=0.2)
    assert time.monotonic() - started < 2
    assert server.gone.wait(5)


def test_the_time_includes_looking_up():
    async def resolve(host, port):
        await asyncio.sleep(60)

    with pytest.raises(FetchFailed, match=r"longer than the 0.1 s allowed"):
        fetch("http://a.example", hosts=["a.example"], resolve=resolve, timeout_s=0.1)


# TLS


def test_the_name_is_what_tls_sends_and_checks(tls_server, trust):
    server = tls_server("img.test")
    url = server.url("picture", scheme="https")
    assert fetch(url, hosts=[f"img.test:{server.server_port}"], tls=trust) == PICTURE
    assert server.names == ["img.test"]
    assert server.asked[0][1]["Host"] == f"img.test:{server.server_port}"


@pytest.mark.parametrize("name", ["other.test", "127.0.0.1", "*.img.test"])
def test_a_certificate_for_another_name(tls_server, trust, name):
    server = tls_server(name)
    with pytest.raises(FetchFailed, match="no valid certificate for its name"):
        fetch(server.url("picture", scheme="https"), hosts=[f"img.test:{server.server_port}"], tls=trust)
    assert server.asked == []


def test_a_certificate_nobody_vouches_for(tls_server):
    server = tls_server("img.test")
    with pytest.raises(FetchFailed, match="no valid certificate for its name"):
        fetch(server.url("picture", scheme="https"), hosts=[f"img.test:{server.server_port}"], tls=None)
    assert server.asked == []


def test_a_connection_is_not_reused_for_another_name_at_the_same_address(tls_server, trust):
    server = tls_server("img.test")
    urls = [server.url("picture", host, "https") for host in ("img.test", OTHER)]
    port = server.server_port
    with pytest.raises(FetchFailed, match=f"'{OTHER}:{port}' has no valid certificate"):
        fetch(*urls, hosts=[f"img.test:{port}", f"{OTHER}:{port}"], tls=trust)
    assert len(server.asked) == 1


@pytest.mark.parametrize("where, message", [("head", "did not answer in HTTP"), ("body", "broke off in the middle")])
def test_tls_that_breaks(tls_server, trust, where, message):
    server = tls_server("img.test")
    with pytest.raises(FetchFailed, match=message):
        fetch(server.url(f"no_tls/{where}", scheme="https"), hosts=[f"img.test:{server.server_port}"], tls=trust)


def test_tls_where_there_is_none(server, trust):
    with pytest.raises(FetchFailed, match="cannot be connected to"):
        fetch(server.url("picture", scheme="https"), hosts=[f"img.test:{server.server_port}"], tls=trust)


def test_no_redirect_from_https_to_http(tls_server, server, trust):
    secure = tls_server("img.test")
    ports = [f"img.test:{each.server_port}" for each in (secure, server)]
    with pytest.raises(InvalidImage, match="from https to http"):
        fetch(secure.url(f"to/{server.url('picture')}", scheme="https"), hosts=ports, tls=trust)
    assert server.asked == []


def test_a_redirect_from_http_to_https(tls_server, server, trust):
    secure = tls_server("img.test")
    ports = [f"img.test:{each.server_port}" for each in (secure, server)]
    assert fetch(server.url(f"to/{secure.url('picture', scheme='https')}"), hosts=ports, tls=trust) == PICTURE


# The end


def test_a_cancelled_fetch_closes_its_connection(server):
    async def call():
        fetcher = local_fetcher(server)
        fetching = asyncio.create_task(fetcher.fetch(server.url("drip")))
        assert await asyncio.to_thread(server.started.wait, 5)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert await asyncio.to_thread(server.gone.wait, 5)
        assert await fetcher.fetch(server.url("picture")) == PICTURE
        await fetcher.aclose()

    asyncio.run(call())


def test_closing_ends_fetches_under_way_and_new_ones(server):
    async def call():
        fetcher = local_fetcher(server)
        fetching = asyncio.create_task(fetcher.fetch(server.url("drip")))
        assert await asyncio.to_thread(server.started.wait, 5)
        await fetcher.aclose()
        with pytest.raises(NotReady, match="stopping"):
            await fetching
        assert await asyncio.to_thread(server.gone.wait, 5)
        with pytest.raises(NotReady, match="stopping"):
            await fetcher.fetch(server.url("picture"))

    asyncio.run(call())


def test_so_many_fetches_at_a_time(server):
    async def call():
        fetcher = local_fetcher(server)
        found = await asyncio.gather(*(fetcher.fetch(server.url(f"slow_picture/{i}")) for i in range(100)))
        await fetcher.aclose()
        return found

    assert asyncio.run(call()) == [PICTURE] * 100
    assert len({path for path, _ in server.asked}) == 100
    assert 1 < server.most_busy <= 32
