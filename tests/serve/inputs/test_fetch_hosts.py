"""Where pictures may be fetched from: the hosts and ports on the list, public addresses, and redirects."""

import asyncio

import pytest

from hypclip.errors import ConfigError
from serve.errors import InvalidImage
from serve.inputs.fetch import Fetcher, FetchFailed, is_public
from tests.support.fetching import OTHER, PICTURE, Handler, Names, Server, fetch, fetch_from, loopback


@pytest.fixture
def server():
    with Server() as running:
        yield running


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
