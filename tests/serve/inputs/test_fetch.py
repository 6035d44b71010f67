"""Pictures by URL: what arrives, what is cut off, refused or too slow, TLS, and how fetches end."""

import asyncio
import ssl
import time

import pytest
import trustme

from serve.errors import InvalidImage, LimitExceeded, NotReady
from serve.inputs.fetch import Fetcher, FetchFailed
from tests.support.fetching import OTHER, PICTURE, TRUST_NOBODY, Names, Server, fetch, fetch_from, loopback


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
    with pytest.raises(FetchFailed, match=r"longer than the 1 s allowed"):
        fetch_from(server, path, timeout_s=1.0)
    assert time.monotonic() - started < 10  # of twenty that all of it takes
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
