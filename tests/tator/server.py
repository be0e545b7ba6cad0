"""A stand-in Tator server over real HTTP, which behaves as the recordings of a real one do.

    with Tator() as tator:
        tator.project(7, "Planktivore lab", versions={31: "Baseline"})
        tator.put([(str(uuid4()), "Copepod")])                # behind everyone's back
        httpx.put(f"{tator.url}/rest/Localizations/7", headers=tator.auth("syncbot"), json={...})
        tator.labels(elemental_id)                            # ["Copepod"]

Trouble is made by its methods: `answer_lost`, `request_lost`, `throttle`, `down`, `hanging`, `between`, `forbid`,
`right`, `locked_out`, and by `delay`. All of them can be used from any thread.

What the server does that no recording shows is marked so in `search`, `checks` and `writes`; what nobody can guess
is answered with 501. The recordings are replayed against it by `test_recordings.py`.
"""

import hashlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.tator import writes
from tests.tator.api import LISTS, Answer, Api, Request, answered
from tests.tator.http import Cut, Handler, Listener
from tests.tator.rows import CAN_EDIT, FULL_CONTROL, VIEW_ONLY, Data, Kind, Medium, Project, Row, User

_THROTTLED = Answer(
    400, {"message": "Request was throttled. Expected available in 1 second.", "details": "None"}, LISTS
)
_THROTTLED.encode()

BOXES: tuple[dict[str, Any], ...] = (
    {"name": "Label", "dtype": "string", "order": 0, "default": "Unknown"},
    {"name": "score", "dtype": "float", "order": 1, "default": 0.0, "minimum": 0.0, "maximum": 1.0},
    {"name": "cluster", "dtype": "string", "order": 2, "default": "Unknown"},
    {"name": "verified", "dtype": "bool", "order": 3, "default": False},
    {"name": "predicted_label", "dtype": "string", "order": 4, "default": "Unknown"},
    {"name": "note", "dtype": "string", "order": 5},
)
IMAGES: tuple[dict[str, Any], ...] = ({"name": "depth", "dtype": "float"}, {"name": "Label", "dtype": "string"})


class Tator:
    """A server with the users of the recordings; a context that ends it. See the module.

    Attributes:
        data: what it holds; look or change under `lock`
        delay: seconds by which every answer comes later
        requests: how many arrived, by "METHOD /path"; also those that were dropped or refused
        seen: every request that arrived, for a test to look into; only while `watching` is true
        behind_nginx: whether long addresses get nginx's answer, or gunicorn's
    """

    def __init__(self, fine_grain: bool = False) -> None:
        self.data = Data()
        self.lock = threading.RLock()
        self.delay = 0.0
        self.requests: Counter[str] = Counter()
        self.seen: list[Request] = []
        self.watching = False
        self.behind_nginx = False
        self._between: Callable[[], object] | None = None
        self._every = False
        self._armed: list[str] = []  # what happens to the next writes
        self._throttled = 0
        self._holding: threading.Event | None = None
        self._over = threading.Event()
        self.api = Api(self.data, self._pause)
        self.api.fine_grain = fine_grain
        for number, name in ((101, "admin"), (102, "syncbot"), (103, "curator"), (104, "viewer"), (105, "outsider")):
            token = hashlib.sha1(name.encode()).hexdigest()
            self.data.users[number] = User(number, name, {token}, is_staff=name == "admin")
        self._listener = Listener(self._connected)

    def __enter__(self) -> "Tator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server and every connection."""
        self._over.set()
        self._listener.close(hold=False)

    # --- how to reach it ---

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def port(self) -> int:
        """The port of 127.0.0.1."""
        return self._listener.port

    def token(self, username: str = "syncbot") -> str:
        """A token of a user: admin (Full Control), syncbot, curator (Can Edit), viewer, outsider (no member)."""
        return next(iter(self._user(username).tokens))

    def auth(self, username: str = "syncbot") -> dict[str, str]:
        """The header with a user's token."""
        return {"Authorization": f"Token {self.token(username)}"}

    def _user(self, username: str) -> User:
        return next(user for user in self.data.users.values() if user.username == username)

    # --- what it holds ---

    def project(
        self,
        number: int = 7,
        name: str = "Planktivore lab",
        versions: Mapping[int, str] | None = None,
        kinds: Mapping[int, tuple[str, Sequence[dict[str, Any]]]] | None = None,
        media_kinds: Mapping[int, tuple[str, Sequence[dict[str, Any]]]] | None = None,
    ) -> Project:
        """Adds a project with the usual members, versions (31 Baseline, 32 Second), a box type 21, an image type 11."""
        with self.lock:
            made = Project(number, name, "contract fixture", self.data.now())
            self.data.projects[number] = made
            for at, (version, title) in enumerate((versions or {31: "Baseline", 32: "Second"}).items()):
                self.version(number, version, title, at)
            for kind, (title, attributes) in (kinds or {21: ("Boxes", BOXES)}).items():
                made.kinds[kind] = Kind(kind, number, title, "box", list(attributes))
            for kind, (title, attributes) in (media_kinds or {11: ("Images", IMAGES)}).items():
                made.media_kinds[kind] = Kind(kind, number, title, "image", list(attributes))
            default = next(iter(made.versions))
            self.data.join(number, 101, FULL_CONTROL)
            for user, right in ((102, CAN_EDIT), (103, CAN_EDIT), (104, VIEW_ONLY)):
                self.data.join(number, user, right, default)
            return made

    def version(self, project: int, number: int, name: str, at: int = 0) -> None:
        """Adds a version to a project."""
        self.data.projects[project].versions[number] = {
            "id": number,
            "name": name,
            "description": "",
            "show_empty": True,
            "elemental_id": f"fe03d47b-aa6b-4c40-97e2-{number:012d}",
            "number": at,
            "project": project,
            "created_by": None,
            "bases": [],
        }

    def put(
        self,
        records: Iterable[tuple[str, Any]],
        project: int = 7,
        version: int = 31,
        kind: int = 21,
        attribute: str = "Label",
        **values: Any,
    ) -> list[Row]:
        """Adds localizations (elemental id, label), behind everyone's back; a label of None is no such attribute.

        `values` are further columns, such as `deleted=True` or `mark=1`, or `attributes` for all of them. An id that
        is there already gets a second row, with the same mark unless another is given.
        """
        now = self.data.now()
        with self.lock:
            added = []
            for elemental_id, label in records:
                attributes = {**values.get("attributes", {}), **({} if label is None else {attribute: label})}
                columns: dict[str, Any] = {
                    "id": 0,
                    "project": project,
                    "type": kind,
                    "media": 5001,
                    "version": version,
                    "elemental_id": elemental_id,
                    "mark": 0,
                    "created_by": 102,
                    "modified_by": 102,
                    "user": 102,
                    "deleted": False,
                    "box": (0.0, 0.0, 0.1, 0.1),
                    "frame": 0,
                    "created": now,
                    "modified": now,
                }
                added.append(self.data.add(Row(**columns | values | {"attributes": attributes})))
            return added

    def put_media(
        self, records: Iterable[tuple[str, Any]], project: int = 7, kind: int = 11, attribute: str = "Label"
    ) -> list[Medium]:
        """Adds media (elemental id, label), behind everyone's back; a label of None is no such attribute."""
        now = self.data.now()
        with self.lock:
            added = []
            for elemental_id, label in records:
                number, self.data.next_medium = self.data.next_medium, self.data.next_medium + 1
                attributes = {} if label is None else {attribute: label}
                one = Medium(
                    number, project, kind, f"roi_{number:04d}.png", attributes, elemental_id, now, now, 101, 101
                )
                self.data.media[number] = one
                added.append(one)
            return added

    def rows(self, elemental_id: str, version: int | None = None) -> list[Row]:
        """Copies of all marks of an element, deleted ones too, the oldest first."""
        with self.lock:
            return [row.copy() for row in self.data.marks(elemental_id, version)]

    def labels(self, elemental_id: str, version: int = 31, attribute: str = "Label") -> list[Any]:
        """The labels that the list shows for an element: one, or none; None for a row without."""
        with self.lock:
            shown = [row for row in self.data.marks(elemental_id, version) if self.data.is_latest(row)]
            return [row.attributes.get(attribute) for row in shown if not row.deleted]

    def media_labels(self, elemental_id: str, attribute: str = "Label") -> list[Any]:
        """The labels of the media with this elemental id."""
        with self.lock:
            found = [one for one in self.data.media.values() if one.elemental_id == elemental_id]
            return [one.attributes.get(attribute) for one in found]

    def edit(self, elemental_id: str, label: Any, version: int = 31, by: str = "curator", mark: bool = False) -> None:
        """A person changes a label in the web site: in place, or as a new mark (what the site itself does)."""
        with self.lock:
            row = self.data.marks(elemental_id, version)[-1]
            body = {"attributes": {"Label": label}, "in_place": int(not mark)}
            writes.single(self.data, row, body, self._user(by), 0, lambda _: None)
            self.data.written[elemental_id] -= 1

    def times(self, elemental_id: str) -> int:
        """How often an element, or a media, was written through the API; edits behind its back do not count."""
        return self.data.written[elemental_id]

    # --- trouble ---

    @contextmanager
    def answer_lost(self, count: int = 1) -> Iterator[None]:
        """The next writes are made; instead of the answer the connection breaks."""
        yield from self._arming(["answer"] * count)

    @contextmanager
    def request_lost(self, count: int = 1) -> Iterator[None]:
        """The next writes do not arrive; the connection breaks instead."""
        yield from self._arming(["request"] * count)

    def _arming(self, faults: list[str]) -> Iterator[None]:
        with self.lock:
            self._armed += faults
        try:
            yield
        finally:
            with self.lock:
                self._armed.clear()

    def throttle(self, count: int) -> None:
        """The next requests get the answer to those who ask too much; nothing is done (06b)."""
        with self.lock:
            self._throttled = count

    @contextmanager
    def down(self) -> Iterator[None]:
        """Connections are broken and refused."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def stop(self) -> None:
        """Goes down; what it holds stays."""
        self._listener.close()

    def start(self) -> None:
        """Up again, on the same port."""
        self._listener.open()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Requests are taken, and not carried out, and not answered before this ends."""
        self._holding = held = threading.Event()
        try:
            yield
        finally:
            self._holding = None
            held.set()

    def hang(self) -> None:
        """Waits until the server ends."""
        self._over.wait()

    @contextmanager
    def between(self, call: Callable[[], object], every: bool = False) -> Iterator[None]:
        """Calls in the next bulk change, or in each, after its check and before it writes; others may write then."""
        self._between, self._every = call, every
        try:
            yield
        finally:
            self._between = None

    def forbid(self, label: str) -> None:
        """From now on a rule of the server's own refuses this label, with a 400."""
        self.api.forbidden.add(label)

    @contextmanager
    def right(self, username: str, permission: str | None, project: int = 7) -> Iterator[None]:
        """A user may do something else: "View Only", or None for no member."""
        user, members = self._user(username), self.data.projects[project].members
        with self.lock:
            before = members.pop(user.id, None)
            if permission is not None:
                self.data.join(project, user.id, permission)
        try:
            yield
        finally:
            with self.lock:
                members.pop(user.id, None)
                if before is not None:
                    members[user.id] = before

    @contextmanager
    def locked_out(self, username: str = "syncbot") -> Iterator[None]:
        """A user's tokens are gone."""
        user = self._user(username)
        tokens, user.tokens = user.tokens, set()
        try:
            yield
        finally:
            user.tokens = tokens

    # --- serving ---

    def _connected(self, connection: socket.socket) -> None:
        Handler(connection, connection.getpeername(), self)  # type: ignore[arg-type]

    def serve(self, request: Request) -> Answer:
        """The answer to a request, or trouble.

        Raises:
            Cut: the connection is to break
        """
        with self.lock:
            self.requests[f"{request.method} {request.path}"] += 1
            if self.watching:
                self.seen.append(request)
            fault = self._armed.pop(0) if self._armed and request.method in ("PATCH", "POST", "DELETE") else None
        if (held := self._holding) is not None:
            held.wait(60)
            raise Cut
        if fault == "request":
            raise Cut
        if self._throttled:
            with self.lock:
                self._throttled = max(0, self._throttled - 1)
            return _THROTTLED
        with self.lock:
            answer = answered(self.api, request)
            answer.encode()  # here, as rows may change as soon as the lock is free
        if self.delay:
            time.sleep(self.delay)
        if fault == "answer":
            raise Cut
        return answer

    def _pause(self) -> None:
        """Between check and change: the lock is let go, as the two are not one statement."""
        call = self._between
        if not self._every:
            self._between = None
        self.lock.release()
        try:
            if call is not None:
                call()
        finally:
            self.lock.acquire()
