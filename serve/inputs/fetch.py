"""Images from URLs: only from hosts the operator named, and only from public addresses.

A server that fetches what clients name can be turned against its own network. So each hop checks scheme, host and port
before it looks the name up, looks it up once, checks every address, and connects to the addresses it checked: a name
that resolves to something else a moment later changes nothing. Redirects are hops like any other.

safehttpx 0.2.0 is not used: it takes the first public address among several, asks a public DNS-over-HTTPS service when
there is none, and neither follows redirects with the same checks nor caps the bytes of a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx2

from hypclip.errors import ConfigError, HypclipError
from serve.errors import InvalidImage, LimitExceeded, NotReady
from serve.settings import ENV_PREFIX

logger = logging.getLogger(__name__)

SETTING = f"{ENV_PREFIX}IMAGE_URL_HOSTS"
"""The setting that names the hosts."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host name and a port to IP addresses; none, or an OSError, if the name is unknown."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FETCHES = 32  # at a time; more wait, and the wait counts as time of the fetch
_RESOLVERS = 4
_MAX_URL_CHARS = 8192

_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*({_LABEL})")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENTRY = re.compile(r"(?P<any>\*\.)?(?P<host>[^\s:/?#@%*\\\[\]]+)(?::(?P<port>[0-9]{1,5}))?")

_UNICAST6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; one cloud had its metadata there
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # Azure's host, seen from every virtual machine in it
        "2001::/32",  # Teredo and 6to4: tunnels that are no more, whose addresses hide any other
        "2002::/16",
        "3fff::/20",  # documentation
    )
)
"""What `is_global` calls public in some version of Python, and should not be connected to."""


class FetchFailed(HypclipError):
    """A host that may be asked does not deliver the image."""


class _Rule(NamedTuple):
    """One entry of the allow-list: a name, or with a leading dot everything below it, and a port if not the usual."""

    name: str
    port: int | None

    def allows(self, target: _Target) -> bool:
        named = target.host.endswith(self.name) if self.name.startswith(".") else target.host == self.name
        return named and target.port == (_PORTS[target.url.scheme] if self.port is None else self.port)


class _Target(NamedTuple):
    """One hop: what to ask, of whom, and what to call that in messages."""

    url: httpx2.URL
    host: str
    port: int
    shown: str

    @property
    def netloc(self) -> str:
        return self.host if self.port == _PORTS[self.url.scheme] else f"{self.host}:{self.port}"


class Fetcher:
    """Fetch images by URL from an allow-list of hosts. One of them serves any number of fetches at a time.

    Args:
        hosts: exact host names, or "*.example.com" for everything below example.com but not itself. An entry may end
            in a port, "example.com:8443"; without one, only 80 of http and 443 of https are allowed. Empty: every URL
            is refused.
        max_bytes: largest image.
        timeout_s: the longest a fetch may take, from looking up the name to the last byte of the last hop.
        max_redirects: redirects to follow.
        resolve: how names are looked up; the system's resolver if not given.
        permitted: whether an address may be connected to; a name is refused if one of its addresses may not.
        tls: certificates to trust; those of the system if not given.

    Raises:
        ConfigError: an entry of `hosts` is no host name.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        max_bytes: int,
        timeout_s: float,
        max_redirects: int = 3,
        resolve: Resolve | None = None,
        permitted: Callable[[str], bool] | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        self._rules = [_rule(entry) for entry in hosts]
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_redirects = max_redirects
        self._resolve = self._look_up if resolve is None else resolve
        self._permitted = is_public if permitted is None else permitted
        # Threads of its own: a resolver that hangs must not take the threads that searches run on.
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")
        if tls is None:
            # Reading the certificates of the system takes 50 ms, for nothing where no URL is fetched.
            tls = httpx2.create_ssl_context(trust_env=False) if hosts else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls = tls
        self._slots = asyncio.Semaphore(_FETCHES)
        self._running: set[asyncio.Timeout] = set()
        self._closed = False

    async def fetch(self, url: str) -> bytes:
        """Fetch what may be an image. Neither its format nor its content is looked at.

        Raises:
            InvalidImage: the URL, what it redirects to, or an address of its host is not one to ask.
            LimitExceeded: the image is over `max_bytes`.
            NotReady: the fetcher is closed.
            FetchFailed: the host is unknown, out of reach, too slow, without a valid certificate, or answers with
                something other than an image as it is.
        """
        if not self._rules:
            raise InvalidImage(
                f"no image URL is fetched, because no host is allowed (setting {SETTING}); "
                "send the image as base64 or as a data URI"
            )
        target = _target(url)
        limit = asyncio.timeout(self._timeout_s)
        self._running.add(limit)
        try:
            async with limit, self._slots:
                return await self._follow(target)
        except TimeoutError as error:
            if self._closed:
                raise _stopping() from error
            raise FetchFailed(f"the image URL took longer than the {self._timeout_s:g} s allowed") from error
        finally:
            self._running.discard(limit)

    async def aclose(self) -> None:
        """End the fetches under way and refuse new ones."""
        self._closed = True
        self._threads.shutdown(wait=False)
        for limit in self._running:
            if not limit.expired():
                limit.reschedule(0)

    async def _follow(self, target: _Target) -> bytes:
        for _ in range(self._max_redirects + 1):
            if self._closed:
                raise _stopping()
            if not any(rule.allows(target) for rule in self._rules):
                raise InvalidImage(
                    f"{target.shown} is not among the hosts and ports that images are fetched from (setting {SETTING})"
                )
            addresses = await self._addresses(target)
            # The bare transport knows no proxies, .netrc, cookies, redirects or decompression. One each time, because
            # it keeps connections by address: one made for a name would serve another without a look at its
            # certificate.
            async with (
                httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport,
                contextlib.aclosing(await _get(transport, target, addresses)) as response,
            ):
                if response.status_code not in _REDIRECTS:
                    return await self._read(target, response)
                target = _redirected(target, response)
        raise FetchFailed(f"the image URL redirects more than {self._max_redirects} times")

    async def _addresses(self, target: _Target) -> Sequence[str]:
        try:
            addresses = await self._resolve(target.host, target.port)
        except OSError as error:
            raise FetchFailed(f"{target.shown} cannot be resolved") from error
        if not addresses:
            raise FetchFailed(f"{target.shown} cannot be resolved")
        refused = [address for address in addresses if not self._permitted(address)]
        if refused:
            # Which addresses is for the operator to know, and for nobody outside.
            logger.warning("refused an image URL: %s resolves to %s", target.host, ", ".join(refused))
            raise InvalidImage(f"{target.shown} does not resolve to public addresses only")
        return addresses

    async def _look_up(self, host: str, port: int) -> list[str]:
        look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [str(address[0]) for *_, address in found]

    async def _read(self, target: _Target, response: httpx2.Response) -> bytes:
        if response.status_code != 200:
            raise FetchFailed(f"{target.shown} answers with status {response.status_code} in place of an image")
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise FetchFailed(f"{target.shown} compresses its answer although it was asked not to")
        length = response.headers.get("Content-Length")
        if length is not None and int(length) > self._max_bytes:
            raise self._too_large(int(length))
        data = bytearray()
        try:
            async with contextlib.aclosing(response.aiter_raw()) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > self._max_bytes:
                        raise self._too_large(None)
        except (httpx2.TransportError, OSError) as error:  # of TLS some come as they are
            raise FetchFailed(f"{target.shown} broke off in the middle of its answer") from error
        return bytes(data)

    def _too_large(self, size: int | None) -> LimitExceeded:
        return LimitExceeded("the size of an image in bytes", size, self._max_bytes, "max_image_bytes")


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, not of a private network, a host or a group.

    An IPv4 address written as IPv6, or behind the well-known prefix of NAT64, counts as the IPv4 address it leads to.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return False
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) % 2**32)
        elif ip not in _UNICAST6:
            # `is_global` is a list of exceptions: ::127.0.0.1, fec0::1 and the unassigned rest pass it.
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


def _rule(entry: str) -> _Rule:
    match = _ENTRY.fullmatch(entry)
    host = None if match is None else _host(match["host"])
    below = match is not None and match["any"] is not None
    port = None if match is None or match["port"] is None else int(match["port"])
    if host is None or (below and "." not in host) or (port is not None and not 0 < port < 2**16):
        raise ConfigError(
            f"{SETTING} has the entry {entry!r}; expected a host name such as 'images.example.com', or "
            "'*.example.com' for all below it, perhaps with a port as in 'example.com:8443', but no scheme, path, "
            "IP address or whole top-level domain"
        )
    return _Rule(f".{host}" if below else host, port)


def _host(text: str) -> str | None:
    """Write a host name in lower case, in ASCII, without the dot at its end; None if it is not one."""
    try:
        name = httpx2.URL(scheme="http", host=text).raw_host.decode().removesuffix(".")
    except (httpx2.InvalidURL, ValueError):
        return None
    match = _NAME.fullmatch(name)
    # Resolvers read 127.1, 2130706433 and 0x7f.1 as IP addresses. No top-level domain is a number.
    return name if match is not None and not _NUMBER.fullmatch(match[1]) else None


def _target(url: str, base: _Target | None = None) -> _Target:
    """Read a URL, or a redirect from `base`. Where the latter leads is not shown to the client."""
    what = "the image URL" if base is None else "the redirect of the image URL"
    try:
        parsed = httpx2.URL(url.strip()) if base is None else base.url.join(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise InvalidImage(f"{what} is not a valid URL") from error
    if len(str(parsed)) > _MAX_URL_CHARS:
        raise InvalidImage(f"{what} is longer than {_MAX_URL_CHARS:,} characters")
    if parsed.scheme not in _PORTS:
        raise InvalidImage(f"{what} has to start with http:// or https://")
    if base is not None and (base.url.scheme, parsed.scheme) == ("https", "http"):
        raise InvalidImage(f"{what} leads from https to http")
    if parsed.userinfo:
        raise InvalidImage(f"{what} has a user name in it; leave that out")
    host = _host(parsed.raw_host.decode())
    if host is None:
        raise InvalidImage(f"{what} has to name its host; IP addresses are refused in every notation")
    target = _Target(parsed, host, _PORTS[parsed.scheme] if parsed.port is None else parsed.port, "")
    return target._replace(shown=repr(target.netloc) if base is None else "the host the image URL redirects to")


async def _get(transport: httpx2.AsyncHTTPTransport, target: _Target, addresses: Sequence[str]) -> httpx2.Response:
    """Send the request to the first address that can be connected to, and return the head of the response."""
    headers = {
        "Host": target.netloc,
        "User-Agent": "hypclip",
        "Accept": "image/*",
        "Accept-Encoding": "identity",  # a few compressed bytes can be gigabytes
        "Connection": "close",
    }
    failure: Exception | None = None
    for address in addresses:
        url = target.url.copy_with(host=address)
        # The name is what TLS sends and what the certificate is checked against, in place of the address.
        request = httpx2.Request("GET", url, headers=headers, extensions={"sni_hostname": target.host})
        try:
            return await transport.handle_async_request(request)
        except httpx2.ConnectError as error:
            failure = error
        except (httpx2.TransportError, OSError) as error:
            raise FetchFailed(f"{target.shown} closed the connection or did not answer in HTTP") from error
    if _is_about_certificate(failure):
        raise FetchFailed(f"{target.shown} has no valid certificate for its name") from failure
    raise FetchFailed(f"{target.shown} cannot be connected to") from failure


def _redirected(target: _Target, response: httpx2.Response) -> _Target:
    location = response.headers.get("Location")
    if location is None:
        raise FetchFailed(f"{target.shown} answers with a redirect to nowhere")
    return _target(location, target)


def _is_about_certificate(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _stopping() -> NotReady:
    return NotReady("the server is stopping")
