"""Servers that answer with pictures or misbehave, a resolver that knows a few names, and fetching by both."""

import asyncio
import gzip
import http.server
import ipaddress
import os
import socket
import ssl
import threading
import time

from serve.inputs.fetch import Fetcher

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
