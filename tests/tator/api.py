"""The addresses of a stand-in Tator server: who may do what, and which answer comes of it."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.tator import checks, pages, shown, writes
from tests.tator.rows import CAN_EDIT, EFFECTIVE, FULL_CONTROL, Data, Medium, Row, User
from tests.tator.search import Broken, Crash, Refused, Unrecorded, parse, select, select_media
from tests.tator.writes import Forbidden, Missing

LISTS = "GET, POST, PATCH, DELETE, PUT"
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_UNAUTHENTICATED = "Authentication credentials were not provided."


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    pairs: list[tuple[str, str]]
    headers: Mapping[str, str]
    raw: bytes


@dataclass
class Answer:
    """What goes back.

    Attributes:
        body: to be written as JSON, or text as it is
        compressed: a GET list, which is always gzip, and hangs when its text fills whole buffers (12)
        broken: the server fails when it has said 200: of a GET nothing comes, of a PUT the connection is cut
    """

    status: int
    body: Any
    allow: str = ""
    vary: str = "Accept, Cookie"
    kind: str = "text/html; charset=utf-8"  # of a body that is text
    compressed: bool = False
    chunked: bool = False
    broken: bool = False
    encoded: bytes = b""

    def encode(self) -> None:
        """Makes bytes of the body."""
        text = self.body if isinstance(self.body, str) else _JSON.encode(self.body)
        self.encoded = text.encode("utf-8", "surrogatepass")


class NotFound(Exception):
    """An address that nobody serves: the web site's page of a 404."""


# Address, what it allows, and the name of the function that serves it.
_ROUTES: list[tuple[re.Pattern[str], str, str]] = [
    (re.compile(f"/rest/{pattern}"), allow, name)
    for pattern, allow, name in [
        (r"Localizations/(?P<project>\d+)", LISTS, "localizations"),
        (r"LocalizationCount/(?P<project>\d+)", "GET, PUT", "localization_count"),
        (r"Localization/(?P<id>\d+)", "GET, PATCH, DELETE", "localization"),
        (r"Localization/(?P<version>\d+)/(?P<element>[^/]+)", "GET, PATCH, DELETE", "localization"),
        (r"Medias/(?P<project>\d+)", LISTS, "medias"),
        (r"Media/(?P<id>\d+)", "GET, PATCH, DELETE", "media"),
        (r"Projects", "GET, POST", "projects"),
        (r"Project/(?P<project>\d+)", "GET, PATCH, DELETE", "project"),
        (r"Versions/(?P<project>\d+)", "GET, POST", "versions"),
        (r"LocalizationTypes/(?P<project>\d+)", "GET, POST", "localization_types"),
        (r"MediaTypes/(?P<project>\d+)", "GET, POST", "media_types"),
        (r"Memberships/(?P<project>\d+)", "GET, POST", "memberships"),
        (r"ChangeLog/(?P<project>\d+)", "GET", "change_log"),
        (r"User/GetCurrent", "GET", "whoami"),
        (r"Token", "POST", "token"),
    ]
]


class Api:
    """The REST interface over the data.

    Attributes:
        fine_grain: the permission mode of 06c
        forbidden: labels that a rule of the server's own refuses in any attribute; not Tator's: a plugin, a trigger
    """

    def __init__(self, data: Data, unlocked: Callable[[], None]) -> None:
        self.data = data
        self.fine_grain = False
        self.forbidden: set[str] = set()
        self._unlocked = unlocked

    def answer(self, request: Request) -> Answer:
        """The answer to a request.

        Raises:
            NotFound: nobody serves that address
            Unrecorded: nobody knows what the real server says
        """
        allow, name, named = _served(request.path)
        try:
            user = self._user(request, name)
            if "text/html" in request.headers.get("Accept", ""):
                return _refusal(Refused("Could not satisfy the request Accept header."), allow, "Accept")
            serve = getattr(self, f"_{name}_{request.method.lower()}", None)
            if serve is None:
                raise Refused(f"Operation {request.method.lower()} not found for {_template(request, named)}")
            answer = serve(request, user, **named)
        except Refused as error:
            answer = _refusal(error)
        except Forbidden:
            answer = Answer(403, {"message": "You do not have permission to perform this action."})
        except Missing as error:
            answer = Answer(404, {"message": str(error)})
        except Broken:
            answer = Answer(200, "", broken=True, chunked=True, compressed=request.method == "GET")
        answer.allow = allow
        return answer

    # --- who may ---

    def _user(self, request: Request, name: str) -> User | None:
        """Whose token came along; no token, no user, or an error that depends on the address."""
        if name == "token":
            return None
        word, _, token = request.headers.get("Authorization", "").partition(" ")
        if word == "Token":
            if not token:
                raise Refused("Invalid token header. No credentials provided.")
            user = self.data.user_of(token)
            if user is None:
                raise Refused("Invalid token.")
            return user
        if name == "whoami":
            return None
        if self.fine_grain and request.method in ("GET", "PUT"):
            raise Refused("'AnonymousUser' object has no attribute 'groupmembership_set'")
        raise Refused(_UNAUTHENTICATED)

    def _may(self, project: int | str, user: User | None, write: bool = False) -> int:
        """The number of the project, if the user may read (and write) there.

        Raises:
            Missing: no such project
            Forbidden: no member, or one who may only read
        """
        number = int(project)
        if number not in self.data.projects:
            raise Missing("No Project matches the given query.")
        member = self.data.projects[number].members.get(user.id if user else 0)
        if member is None or (write and member.permission not in (CAN_EDIT, FULL_CONTROL)):
            raise Forbidden
        return number

    def _effective(self, project: int, user: User | None) -> int:
        if not self.fine_grain or user is None:
            return 0
        return EFFECTIVE[self.data.projects[project].members[user.id].permission]

    def _rule(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, str) and value in self.forbidden:
                raise Refused(f"{value} is not allowed for attribute {name}")

    # --- localizations, many ---

    def _localizations_get(self, request: Request, user: User | None, project: str) -> Answer:
        return self._list(request, user, project, {})

    def _localizations_put(self, request: Request, user: User | None, project: str) -> Answer:
        return self._list(request, user, project, checks.body_of(request.raw, request.headers.get("Content-Type")))

    def _list(self, request: Request, user: User | None, project: str, body: Mapping[str, Any]) -> Answer:
        number = self._may(project, user)
        query = parse(request.pairs, body)
        if dict(request.pairs).get("format", "json") != "json":
            raise Broken
        effective = self._effective(number, user)
        rows: list[Any] = [shown.localization(row, effective) for row in select(self.data, number, query)]
        if query.fields:
            rows = shown.chosen(rows, query.fields)
        return Answer(200, rows, compressed=request.method == "GET", chunked=True)

    def _localizations_patch(self, request: Request, user: User | None, project: str) -> Answer:
        return self._bulk(request, user, project, media=False)

    def _bulk(self, request: Request, user: User | None, project: str, media: bool) -> Answer:
        number = self._may(project, user, write=True)
        assert user is not None
        body = checks.body_of(request.raw, request.headers.get("Content-Type"))
        query = parse(request.pairs, body)
        if self.fine_grain:
            writes.permitted(self.data, number, query, media)
        rows = writes.found(self.data, number, query, media)
        self._unlocked()  # others may write now: the check and the change are two statements
        said = writes.bulk(self.data, number, rows, body, user, self._rule, media)
        return Answer(200, {"message": said})

    def _localizations_post(self, request: Request, user: User | None, project: str) -> Answer:
        number = self._may(project, user, write=True)
        assert user is not None
        return Answer(201, writes.create(self.data, number, json.loads(request.raw), user))

    def _localization_count_get(self, request: Request, user: User | None, project: str) -> Answer:
        return Answer(200, len(select(self.data, self._may(project, user), parse(request.pairs, {}))))

    def _localization_count_put(self, request: Request, user: User | None, project: str) -> Answer:
        body = checks.body_of(request.raw, request.headers.get("Content-Type"))
        return Answer(200, len(select(self.data, self._may(project, user), parse(request.pairs, body))))

    # --- localizations, one ---

    def _one(self, request: Request, **address: str) -> Row:
        mark = dict(request.pairs).get("mark")
        return writes.one(self.data, **address, mark=None if mark is None else int(mark))

    def _localization_get(self, request: Request, user: User | None, **address: str) -> Answer:
        row = self._one(request, **address)
        number = self._may(row.project, user)
        return Answer(200, shown.localization(row, self._effective(number, user)))

    def _localization_patch(self, request: Request, user: User | None, **address: str) -> Answer:
        row = self._one(request, **address)
        number = self._may(row.project, user, write=True)
        assert user is not None
        body = checks.body_of(request.raw, request.headers.get("Content-Type"), checks.ONE)
        effective = self._effective(number, user)
        return Answer(200, writes.single(self.data, row, body, user, effective, self._rule))

    def _localization_delete(self, request: Request, user: User | None, **address: str) -> Answer:
        row = self._one(request, **address)
        self._may(row.project, user, write=True)
        assert user is not None
        body = json.loads(request.raw) if request.raw else {}
        return Answer(200, writes.delete(self.data, row, user, bool(body.get("prune"))))

    # --- media: of these only GET with `stop` is recorded (01); see `select_media` ---

    def _medias_get(self, request: Request, user: User | None, project: str) -> Answer:
        return self._list_media(request, user, project, {})

    def _medias_put(self, request: Request, user: User | None, project: str) -> Answer:
        body = checks.body_of(request.raw, request.headers.get("Content-Type"))
        return self._list_media(request, user, project, body)

    def _list_media(self, request: Request, user: User | None, project: str, body: Mapping[str, Any]) -> Answer:
        number = self._may(project, user)
        query = parse(request.pairs, body)
        effective = self._effective(number, user)
        rows = [shown.medium(one, effective) for one in select_media(self.data, number, query)]
        if query.fields:
            rows = shown.chosen(rows, query.fields)
        return Answer(200, rows, compressed=request.method == "GET", chunked=True)

    def _medias_patch(self, request: Request, user: User | None, project: str) -> Answer:
        return self._bulk(request, user, project, media=True)

    def _media_get(self, request: Request, user: User | None, id: str) -> Answer:
        one = self._medium(id)
        return Answer(200, shown.medium(one, self._effective(self._may(one.project, user), user)))

    def _media_patch(self, request: Request, user: User | None, id: str) -> Answer:
        one = self._medium(id)
        self._may(one.project, user, write=True)
        assert user is not None
        body = checks.body_of(request.raw, request.headers.get("Content-Type"), checks.ONE)
        return Answer(200, writes.single_medium(self.data, one, body, self._rule))

    def _medium(self, id: str) -> Medium:
        if int(id) not in self.data.media:
            raise Missing("No Media matches the given query.")
        return self.data.media[int(id)]

    # --- what there is ---

    def _projects_get(self, request: Request, user: User | None) -> Answer:
        assert user is not None
        mine = [one for one in self.data.projects.values() if user.id in one.members]
        return Answer(200, [shown.project(one, one.members[user.id], self._effective(one.id, user)) for one in mine])

    def _project_get(self, request: Request, user: User | None, project: str) -> Answer:
        one = self.data.projects[self._may(project, user)]
        assert user is not None
        return Answer(200, shown.project(one, one.members[user.id], self._effective(one.id, user)))

    def _versions_get(self, request: Request, user: User | None, project: str) -> Answer:
        number = self._may(project, user)
        effective = {"effective_permission": self._effective(number, user)}
        return Answer(200, [one | effective for one in self.data.projects[number].versions.values()])

    def _localization_types_get(self, request: Request, user: User | None, project: str) -> Answer:
        one = self.data.projects[self._may(project, user)]
        media, effective = list(one.media_kinds), self._effective(one.id, user)
        return Answer(200, [shown.kind(kind, media, effective) for kind in one.kinds.values()])

    def _media_types_get(self, request: Request, user: User | None, project: str) -> Answer:
        kinds = self.data.projects[self._may(project, user)].media_kinds
        return Answer(200, [shown.media_kind(kind) for kind in kinds.values()])

    def _memberships_get(self, request: Request, user: User | None, project: str) -> Answer:
        number = self._may(project, user)
        members = sorted(self.data.projects[number].members.values(), key=lambda one: one.user.username)
        return Answer(200, [shown.membership(one, number) for one in members])

    def _change_log_get(self, request: Request, user: User | None, project: str) -> Answer:
        number = self._may(project, user)
        asked = dict(request.pairs)
        if not asked.keys() & {"user_id", "entity_id", "entity_type"}:
            raise Refused("At least one of the following fields need to be set: user_id, entity_id, entity_type")
        row, by = (int(asked[name]) if name in asked else None for name in ("entity_id", "user_id"))
        return Answer(200, shown.changes(self.data, number, row, by))

    def _whoami_get(self, request: Request, user: User | None) -> Answer:
        if user is None:
            raise Missing("User matching query does not exist.")
        return Answer(200, user.shown())

    def _token_post(self, request: Request, user: User | None) -> Answer:
        raise Refused("Could not authenticate with provided credentials!")


def _refusal(error: Refused, allow: str = "", vary: str = "Accept, Cookie") -> Answer:
    return Answer(400, {"message": error.message, "details": error.details}, allow, vary)


def _served(path: str) -> tuple[str, str, dict[str, str]]:
    """What an address allows, the name of what serves it, and the parts of it that have a name."""
    for pattern, allow, name in _ROUTES:
        match = pattern.fullmatch(path)
        if match:
            return allow, name, match.groupdict()
    raise NotFound


def _template(request: Request, named: Mapping[str, str]) -> str:
    """The address as the server's own list of them has it."""
    path = request.path
    for name, value in named.items():
        path = path.replace(value, f"<{'int' if value.isdigit() else 'str'}:{name}>")
    return f"http://{request.headers.get('Host', '')}{path}"


def answered(api: Api, request: Request) -> Answer:
    """What the API answers, and what becomes of requests that it does not survive."""
    try:
        return api.answer(request)
    except NotFound:
        return Answer(404, pages.NOT_FOUND)
    except Crash:
        return Answer(500, pages.SERVER_ERROR, kind="text/html")
    except Unrecorded as error:
        return Answer(501, f"the recordings do not show what Tator does with {error}")
