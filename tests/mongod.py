"""A MongoDB server of a test's own, which it may stop, kill and start again on the same port and data."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Ends the server when whoever started it is gone, however that ended.
_KEEPER = """
exec 3<&0
"$@" > /dev/null 2>&1 3<&- & server=$!
(cat <&3 > /dev/null; kill -9 $server) 2> /dev/null & keeper=$!
echo $server
wait $server
kill $keeper
"""


class Mongod:
    """The `mongod` that FiftyOne ships; a context that starts and ends it."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.options = folder, options
        self._keeper: subprocess.Popen | None = None
        self._pid = 0

    def __enter__(self) -> "Mongod":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, with the data it had, and returns once it answers."""
        from fiftyone.core.service import DatabaseService

        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["sh", "-c", _KEEPER, "sh", DatabaseService.find_mongod(), "--dbpath", str(self.folder)]
        command += ["--port", str(self.port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        command += ["--wiredTigerCacheSizeGB", "0.25", *self.options]
        self._keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._keeper.stdout is not None
        self._pid = int(self._keeper.stdout.readline())
        # Directly: a member of a replica set that is still to be made does not count as a server otherwise.
        with self.client(serverSelectionTimeoutMS=60_000, directConnection=True) as client:
            client.admin.command("ping")

    def end(self, how: int = signal.SIGTERM) -> None:
        """Ends it: after SIGTERM it has kept what it was told, after SIGKILL only what it had promised to keep."""
        if self._keeper is None:
            return
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        os.kill(self._pid, how)
        self._keeper.wait(30)
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        self._keeper = None

    def client(self, **options: Any) -> Any:
        import pymongo

        return pymongo.MongoClient(self.uri, **options)


def later(seconds: float, call: Callable[[], Any]) -> threading.Thread:
    """Calls after some seconds, in a thread that it returns."""

    def wait_and_call() -> None:
        time.sleep(seconds)
        call()

    thread = threading.Thread(target=wait_and_call)
    thread.start()
    return thread
