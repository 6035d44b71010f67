"""The proxy for a server, by the settings of the environment: none where the server is this machine."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from typing import NamedTuple

import httpx2

from .errors import UnusableProxy

_SCHEMES = ("http", "https", "socks5", "socks5h")


class Proxy(NamedTuple):
    """A proxy: its URL, with its password, and its name in messages, without."""

    url: str
    named: str


def proxy_for(url: httpx2.URL) -> Proxy | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or the system, name for a server.

    None where there is none, NO_PROXY excepts the server, or the server is this machine: to a proxy, localhost is the
    proxy itself.

    Raises:
        UnusableProxy: it is none of http, https, socks5 and socks5h, or no address.
    """
    # Names in lower case come first, and the settings of Windows and macOS where there are none.
    settings = {name: value.strip() for name, value in urllib.request.getproxies().items()}
    setting = next((one for one in (url.scheme, "all") if settings.get(one)), None)
    if setting is None or is_loopback(url.host) or _is_excepted(url, settings.get("no", "")):
        return None
    address = settings[setting] if "://" in settings[setting] else f"http://{settings[setting]}"
    variable = f"{setting.upper()}_PROXY"
    try:
        parsed = httpx2.URL(address)
    except (httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL("")  # and no word of the address, which may have a password in it
    if not parsed.host:
        raise UnusableProxy(f"{variable} is no address of a proxy; expected one such as http://proxy:3128")
    named = f"{parsed.scheme}://{parsed.netloc.decode()} ({variable})"
    if parsed.scheme not in _SCHEMES:
        raise UnusableProxy(
            f"the proxy {named} is of a kind that is not spoken; expected {', '.join(_SCHEMES)}. "
            f"Set it anew, or put {url.host} into NO_PROXY to do without"
        )
    return Proxy(address, named)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its name or address; 0.0.0.0 counts, since it connects there."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:  # 127.1 and 2130706433 are addresses too
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host[:1].isdigit() else None
    except (OSError, ValueError):
        return None


def _is_excepted(url: httpx2.URL, no_proxy: str) -> bool:
    """Tell whether a server matches NO_PROXY: names with all their subdomains, addresses and networks."""
    host, address = url.host.rstrip(".").lower(), _address(url.host)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    for entry in (entry.strip().lower() for entry in no_proxy.split(",")):
        network = _network(entry)
        if network is not None:
            if address is not None and address in network:
                return True
            continue
        name, _, of_port = entry.rpartition("://")[2].partition(":")
        name = name.removeprefix("*").lstrip(".")
        if entry == "*" or (name and of_port in ("", str(port)) and (host == name or host.endswith(f".{name}"))):
            return True
    return bool(urllib.request.proxy_bypass(url.host))  # the system's own exceptions


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
