"""A webhook over real HTTP, for tests to see what is posted."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hook:
    """A webhook that notes what it gets, and answers in turn as it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                code, headers = outer.answers.pop(0) if outer.answers else (200, {})
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.secrets = {"MBARI_WEBHOOK_URL": f"http://127.0.0.1:{self.server.server_port}/services/hunter2"}

    def events(self) -> list[str]:
        """The types of the events that were posted."""
        return [body["metadata"]["event_type"] for body in self.bodies]

    def close(self) -> None:
        """Ends the server."""
        self.server.shutdown()
        self.server.server_close()
