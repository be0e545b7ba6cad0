"""Trouble made to order, for tests: a TCP proxy that misbehaves when told to.

    with proxy("127.0.0.1", 27017) as between:
        client = MongoClient("127.0.0.1", between.port, directConnection=True)
        between.drop_answers(1, holding=UPDATE)   # the next write is made, its answer is lost
        between.drop_requests(1, holding=UPDATE)  # the next write never arrives
        between.delay(2.0)                        # answers come two seconds later
        between.cut()                             # every connection breaks, new ones work
        between.refuse()                          # as a server that is down; accept() ends it
        between.heal()                            # no more trouble

The proxy knows nothing of the protocol but that the client asks and the server answers: what the client sends
after an answer is one request. Without `holding` any request counts, also those by which a driver looks after its
connections.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Literal

# What MongoDB's commands of this kind hold near their beginning.
UPDATE = b"\x02update\x00"
FIND = b"\x02find\x00"

_NEAR = 65_536  # bytes of a request that are searched


class _Fault:
    """One kind of fault, for the next `left` requests that hold these bytes."""

    def __init__(self, kind: Literal["request", "answer"], left: int, holding: bytes) -> None:
        self.kind, self.left, self.holding = kind, left, holding


class _Connection:
    """A client, the server for it, and what the client has sent since the last answer."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.request = b""
        self.doomed = False  # the answer to the request under way is not to arrive

    def cut(self) -> None:
        for end in (self.client, self.server):
            # A reset rather than a polite end, as from a machine that is gone.
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
            end.close()


class Proxy:
    """What stands between client and server; see the module. Safe to command from any thread.

    Attributes:
        host: where clients connect to
        port: the same
        faults: how many requests and answers were dropped so far
    """

    def __init__(self, host: str, port: int) -> None:
        self.faults = 0
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._armed: list[_Fault] = []
        self._refusing = False
        self._seconds = 0.0
        self._hurry = threading.Event()  # ends delays under way
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def refuse(self) -> None:
        """Breaks every connection and every new one at once, until `accept`."""
        with self._lock:
            self._refusing = True
        self.cut()

    def accept(self) -> None:
        """Ends `refuse`."""
        with self._lock:
            self._refusing = False

    def cut(self) -> None:
        """Breaks every connection there is; new ones work."""
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            connection.cut()

    def drop_answers(self, count: int = 1, holding: bytes = b"") -> None:
        """The next requests that hold these bytes are carried out; instead of the answer the connection breaks."""
        with self._lock:
            self._armed.append(_Fault("answer", count, holding))

    def drop_requests(self, count: int = 1, holding: bytes = b"") -> None:
        """The next requests that hold these bytes do not arrive; the connection breaks instead."""
        with self._lock:
            self._armed.append(_Fault("request", count, holding))

    def delay(self, seconds: float) -> None:
        """Holds back every answer for so long; 0 ends that for answers to come."""
        self._seconds = seconds

    def heal(self) -> None:
        """Ends every trouble; what is held back goes through."""
        with self._lock:
            self._armed.clear()
            self._refusing = False
            self._seconds = 0.0
        self._hurry.set()
        self._hurry = threading.Event()

    def close(self) -> None:
        """Ends the proxy."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.heal()
        self.refuse()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                _Connection(client, socket.socket()).cut()
                continue
            server.settimeout(None)
            connection = _Connection(client, server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                refused = self._refusing
                if not refused:
                    self._connections.add(connection)
            if refused:
                connection.cut()
                continue
            for pump in (self._ask, self._answer):
                threading.Thread(target=self._run, args=(pump, connection), daemon=True).start()

    def _run(self, pump, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            pump(connection)
        with self._lock:
            self._connections.discard(connection)
        connection.cut()

    def _ask(self, connection: _Connection) -> None:
        while data := connection.client.recv(_NEAR):
            with self._lock:
                connection.request = (connection.request + data)[:_NEAR]
                kind = None if connection.doomed else self._fault(connection.request)
                connection.doomed = connection.doomed or kind == "answer"
            if kind == "request":
                return
            connection.server.sendall(data)

    def _fault(self, request: bytes) -> str | None:
        for fault in self._armed:
            if fault.holding in request:
                fault.left -= 1
                self.faults += 1
                if not fault.left:
                    self._armed.remove(fault)
                return fault.kind
        return None

    def _answer(self, connection: _Connection) -> None:
        while data := connection.server.recv(_NEAR):
            with self._lock:
                if connection.doomed:  # the server has answered, so it has done what it was asked
                    return
                connection.request = b""
            if self._seconds:
                self._hurry.wait(self._seconds)
            connection.client.sendall(data)


@contextlib.contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy in front of a server; clients connect to its `host` and `port`."""
    between = Proxy(host, port)
    try:
        yield between
    finally:
        between.close()
