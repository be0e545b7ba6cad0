"""HTTP of a stand-in Tator server: requests in, answers out as gunicorn and nginx give them, and trouble to order."""

import contextlib
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.tator import pages
from tests.tator.api import Answer, Request

BUFFER = 8192  # bytes of the list's text that are compressed at a time
_LINE = 4094  # bytes of a request line that gunicorn takes
_NGINX_LINE = 8192
_HOSTS = ("127.0.0.1", "localhost", "tator.test")


class Cut(Exception):
    """The connection ends here and now."""


class Listener:
    """A port on which every connection has a thread; `close` and `open` again keep the port.

    Attributes:
        serve: called with each connection, until that ends
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._socket = self._bound(0)
        self.port = self._socket.getsockname()[1]
        self._held: socket.socket | None = self._socket
        self.open()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        return made

    def open(self) -> None:
        """Listens."""
        if self._held is None:
            return
        self._socket, self._held = self._held, None
        self._socket.listen(128)
        threading.Thread(target=self._accept, args=(self._socket,), name="tator", daemon=True).start()

    def close(self, hold: bool = True) -> None:
        """Ends every connection and refuses new ones; holds on to the port if there is to be an `open`."""
        if self._held is None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            if hold:
                self._held = self._bound(self.port)  # bound, and not listening: connections are refused
        elif not hold:
            self._held.close()
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            reset(connection)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._run, args=(connection,), name="tator", daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, Cut):
            self._serve(connection)
        with self._lock:
            self._connections.discard(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def reset(connection: socket.socket) -> None:
    """Breaks a connection as a machine that is gone would."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
    connection.close()


class Handler(BaseHTTPRequestHandler):
    """One connection; `server` is the `Tator` behind it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    server: Any

    def parse_request(self) -> bool:
        """Refuses lines that are too long for the web server in front."""
        self._length = len(self.raw_requestline.rstrip(b"\r\n"))
        return super().parse_request()

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        pairs = parse_qsl(split.query, keep_blank_values=True)
        request = Request(self.command, split.path, pairs, self.headers, raw)  # type: ignore[arg-type]
        early = self._early()
        if early is not None:
            early.encode()
            self._send(early)
            return
        # Whoever answers may also raise Cut, and that ends the connection with no answer.
        self._send(self.server.serve(request))

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _early(self) -> Answer | None:
        """What is said before any of Tator's own code runs."""
        behind_nginx = self.server.behind_nginx
        if self._length > (_NGINX_LINE if behind_nginx else _LINE):
            if behind_nginx:
                return Answer(414, pages.NGINX_LONG, kind="text/html")
            return Answer(400, pages.LONG.format(min(self._length, 8192)), kind="text/html")
        if self.headers.get("Host", "").partition(":")[0] not in _HOSTS:
            return Answer(400, pages.BAD_HOST, chunked=True)
        return None

    def _send(self, answer: Answer) -> None:
        body = answer.encoded
        self.send_response_only(answer.status)
        self.send_header("Date", formatdate(usegmt=True))
        self._send_server(answer)
        json_body = not isinstance(answer.body, str) or answer.broken
        self.send_header("Content-Type", "application/json" if json_body else answer.kind)
        if json_body:
            self.send_header("Vary", answer.vary)
            self.send_header("Allow", answer.allow)
        if answer.compressed:
            self.send_header("Content-Encoding", "gzip")
        if not answer.chunked:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if answer.compressed:
            self._send_compressed(body, answer.broken)
        elif answer.broken:
            self.wfile.flush()
            raise Cut
        else:
            self._chunk(body)
            self._chunk(b"", last=True)

    def _send_server(self, answer: Answer) -> None:
        if self.server.behind_nginx:
            self.send_header("Server", "nginx/1.22.1")
        elif answer.kind != "text/html":  # what gunicorn says by itself has no name of a server
            self.send_header("Server", "gunicorn")
        if answer.kind == "text/html":
            self.send_header("Connection", "close")
            self.close_connection = True

    def _send_compressed(self, body: bytes, broken: bool) -> None:
        """A list in gzip; when it ends with a full buffer, the end of it never comes (12)."""
        if not broken:
            packer = zlib.compressobj(1, wbits=31)
            hangs = bool(body) and not len(body) % BUFFER
            packed = packer.compress(body)
            self._chunk(packed if hangs else packed + packer.flush())
            if hangs:
                self.wfile.flush()
                self.server.hang()
                raise Cut
        self._chunk(b"", last=True)

    def _chunk(self, data: bytes, last: bool = False) -> None:
        if data or last:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if last:
            self.wfile.flush()
