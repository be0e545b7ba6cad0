"""An S3 server whose credentials expire when told to, for tests: it stands before a real one and knows every request.

with Expiring(s3) as store:
    store.expire("PUT", "last.pt", after=1)  # the second upload of a checkpoint is the first thing refused
    ...                                      # from then on every request with these keys gets S3's ExpiredToken
    store.rotate("AKIANEW")                  # only requests with this key pass
    store.requests                           # of all that were let through: method, path, query
"""

import re
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"


class Request(NamedTuple):
    """What was asked, and with which access key."""

    method: str
    path: str
    query: dict[str, list[str]]
    key: str


class Expiring:
    """The stand-in; its `secrets` are those of the server behind it, with another address."""

    def __init__(self, secrets: dict[str, str], *, hides_missing: bool = False) -> None:
        """Stands before the server that these secrets reach.

        Args:
            secrets: of the server
            hides_missing: whether a missing object is AccessDenied, as S3 has it for those who may list a prefix only
        """
        self._hides_missing = hides_missing
        self.requests: list[Request] = []
        self._behind = urlsplit(secrets["AWS_ENDPOINT_URL"]).netloc
        self._trigger: tuple[str, str, int] | None = None
        self._expired: set[str] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.secrets = secrets | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}"}

    def expire(self, method: str = "", path: str = "", after: int = 0) -> None:
        """Once `after` requests of this method, with this in their path, have passed, the next one's key expires."""
        with self._lock:
            self._trigger = (method, path, after)

    def rotate(self, key: str) -> dict[str, str]:
        """Expires no more by itself; gives secrets with another access key."""
        with self._lock:
            self._trigger = None
        return self.secrets | {"AWS_ACCESS_KEY_ID": key}

    def _passes(self, request: Request) -> bool:
        with self._lock:
            if self._trigger:
                method, path, after = self._trigger
                if request.method.startswith(method) and path in request.path:
                    self._trigger = (method, path, after - 1)
                    if after <= 0:
                        self._expired.add(request.key)
            if request.key in self._expired:
                return False
            self.requests.append(request)
            return True

    def __enter__(self) -> "Expiring":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(store) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                where = urlsplit(self.path)
                signed = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
                query = parse_qs(where.query, keep_blank_values=True)
                if store._passes(Request(self.command, unquote(where.path), query, signed[1] if signed else "")):
                    self.forward(body)
                else:
                    self.send_response(400)
                    self.finish_with(b"" if self.command == "HEAD" else EXPIRED)

            def forward(self, body: bytes) -> None:
                behind = HTTPConnection(store._behind, timeout=30)
                behind.request(self.command, self.path, body, dict(self.headers))
                found = behind.getresponse()
                content = found.read()
                if store._hides_missing and found.status == 404:
                    self.send_response(403)
                    self.finish_with(DENIED)
                    return
                self.send_response_only(found.status)
                for name, value in found.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding") and (
                        name.lower() != "content-length" or self.command == "HEAD"
                    ):
                        self.send_header(name, value)
                if self.command == "HEAD":
                    self.end_headers()
                else:
                    self.finish_with(content)
                behind.close()

            def finish_with(self, content: bytes) -> None:
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        return Handler
