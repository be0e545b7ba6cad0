"""The URI of a MongoDB label store: our keys taken out and checked, the rest handed to pymongo.

The URI may hold a password, in places that only a correct URI tells apart. So no message here repeats a value,
and none is raised while an error of pymongo's, which may repeat one, is being handled.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from ...errors import InputError, StorageError

PATHS = ("id", "label", "modified", "modified_by", "history")
KEYS = ("collection", "name", *PATHS, "id_type", "chunk")
ID_TYPES = ("string", "int", "objectid", "uuid")
MOST_CHANGES = 1_000

# Where the URI does not say: long enough for a server far away, short enough for a person who waits.
_DEFAULTS = {
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 30_000,
    "appname": "mbari-fiftyone",
    "uuidRepresentation": "standard",
}
# With these the token is no password.
_NO_PASSWORD = {"MONGODB-X509", "MONGODB-OIDC", "GSSAPI"}
_ENCODE = "percent-encode what is not a letter or a digit in user, password and values"


@dataclass(frozen=True)
class Settings:
    """What our keys say; paths that are not named are None.

    Attributes:
        name: the store in words, the same for URIs that differ only in credentials, in the order of the servers
            or in pymongo's options; paths of id and label are in it where they are not the usual ones, since
            another path is another label. The key `name` stands for the servers alone: for those whose address
            changes
    """

    name: str
    database: str
    collection: str
    id: str = "elemental_id"
    label: str = "label"
    modified: str | None = None
    modified_by: str | None = None
    history: str | None = None
    id_type: str | None = None
    chunk: int = MOST_CHANGES

    def no_collection(self, names: Iterable[str]) -> StorageError:
        """The error for a collection that is not among those that the user may see."""
        return StorageError(
            f"The database {self.database!r} has no collection {self.collection!r} that the user of "
            f"MBARI_LABEL_STORE may read{_nearest(self.collection, names)}"
        )


def connect(uri: str, token: str | None) -> tuple[MongoClient, Settings]:
    """A client that connects when it is first used, and the settings.

    Raises:
        InputError: the URI cannot be used
        StorageError: the name service knows no such server (`mongodb+srv`)
    """
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    place, _, query = rest.partition("?")
    authority, _, database = place.partition("/")
    user, _, hosts = authority.rpartition("@")
    if not user and "@" in rest:
        raise InputError(f"The secret MBARI_LABEL_STORE cannot be read: {_ENCODE}.")
    database = unquote_plus(database)
    if not re.fullmatch(r"[^/\\. \"$*<>:|?@\0]+", database):
        raise InputError(
            "The secret MBARI_LABEL_STORE names no database, or one that cannot be: write it as "
            f"mongodb://host/<database>?collection=<name>, and {_ENCODE}."
        )
    ours, theirs = _split(query)
    _check(theirs, scheme)
    settings = _settings(ours, f"{scheme}://{_hosts(hosts)}", database)
    given = {key.lower(): value for key, value in theirs}
    more: dict[str, Any] = {key: value for key, value in _DEFAULTS.items() if key.lower() not in given}
    if user and ":" not in user and given.get("authmechanism", "").upper() not in _NO_PASSWORD:
        if not token:
            raise InputError(
                "MBARI_LABEL_STORE names a user without a password: set the secret MBARI_LABEL_STORE_TOKEN to it."
            )
        more["password"] = token
    plain = f"{scheme}://{authority}/{database}"
    if theirs:
        plain += "?" + "&".join(f"{key}={value}" for key, value in theirs)
    return _client(plain, scheme, more), settings


def _client(uri: str, scheme: str, more: dict[str, Any]) -> MongoClient:
    try:
        # A write is repeated by `send.py` alone, after a fresh look.
        return MongoClient(uri, connect=False, retryWrites=False, **more)
    except (PyMongoError, ValueError, TypeError, OSError):
        pass  # its message may repeat the URI: see above
    if scheme == "mongodb+srv":
        raise StorageError(
            "The server of MBARI_LABEL_STORE was not found by its name (mongodb+srv), or the URI cannot be used: "
            "check the name and the network."
        )
    raise InputError(
        f"The secret MBARI_LABEL_STORE cannot be used: check hosts, ports and options, and {_ENCODE}; a password can "
        "also be in the secret MBARI_LABEL_STORE_TOKEN."
    )


def _split(query: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Our keys, decoded, and all others as they stand."""
    ours: dict[str, str] = {}
    theirs = []
    for pair in filter(None, re.split("[&;]", query)):
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]{1,60}", key):
            raise InputError(
                "The part of MBARI_LABEL_STORE after the question mark is key=value pairs joined by &: one is not."
            )
        if key.lower() not in KEYS:
            theirs.append((key, value))
        elif key.lower() in ours:
            raise InputError(f"MBARI_LABEL_STORE has the key `{key.lower()}` twice.")
        else:
            ours[key.lower()] = unquote_plus(value)
    return ours, theirs


def _settings(ours: dict[str, str], server: str, database: str) -> Settings:
    collection = ours.get("collection", "")
    if not collection or "$" in collection or "\0" in collection or collection.startswith((".", "system.")):
        raise InputError(
            "MBARI_LABEL_STORE names no collection, or one that cannot be: add the key `collection`, as in "
            "?collection=<name>."
        )
    for key in PATHS:
        if key in ours:
            _check_path(key, ours[key])
    id_type = ours.get("id_type")
    if id_type is not None and id_type not in ID_TYPES:
        raise InputError(f"The key `id_type` of MBARI_LABEL_STORE is one of: {', '.join(ID_TYPES)}.")
    chunk = ours.get("chunk", str(MOST_CHANGES))
    if not re.fullmatch("[0-9]{1,4}", chunk) or not 1 <= int(chunk) <= MOST_CHANGES:
        raise InputError(f"The key `chunk` of MBARI_LABEL_STORE is a whole number from 1 to {MOST_CHANGES:,}.")
    named = ours.get("name")
    if named is not None and not re.fullmatch(r"\w[\w .:/-]{0,99}", named):
        raise InputError("The key `name` of MBARI_LABEL_STORE is at most 100 letters, digits, spaces, or _ . : / -.")
    unusual = [f"{key}={ours[key]}" for key in ("id", "label") if ours.get(key, "") not in ("", _USUAL[key])]
    name = f"{named or server}/{database}.{collection}" + ("?" + "&".join(unusual) if unusual else "")
    paths = {key: ours[key] for key in PATHS if key in ours}
    made = Settings(name, database, collection, **paths, id_type=id_type, chunk=int(chunk))
    _check_apart(made)
    return made


_USUAL = {"id": Settings.id, "label": Settings.label}


def _check_path(key: str, path: str) -> None:
    for part in path.split("."):
        if not part or "$" in part or "\0" in part or part.isdigit():
            raise InputError(
                f"The key `{key}` of MBARI_LABEL_STORE is the path of a field, such as `{key}` or "
                f"`annotation.{key}`: no `$`, no empty part, no place in a list."
            )
        if part == "_id" and key != "id":
            raise InputError(f"The key `{key}` of MBARI_LABEL_STORE cannot be `_id`, which never changes.")


def _check_apart(settings: Settings) -> None:
    """InputError if one path is another or lies inside it: one write cannot do both."""
    paths = {key: getattr(settings, key) + "." for key in PATHS if getattr(settings, key)}
    for key, path in paths.items():
        for other, longer in paths.items():
            if key != other and longer.startswith(path):
                raise InputError(f"The keys `{key}` and `{other}` of MBARI_LABEL_STORE need paths of their own.")


def _check(theirs: list[tuple[str, str]], scheme: str) -> None:
    """InputError that names the first of pymongo's options that it does not know or take."""
    for key, value in theirs:
        if key.lower().startswith("srv") and scheme == "mongodb+srv":
            continue  # cannot be looked at alone
        said = ""
        try:
            parse_uri(f"mongodb://localhost/?{key}={value}")
        except (PyMongoError, ValueError, TypeError, OSError) as error:
            said = str(error)
        if said.startswith("Unknown option"):
            known = [*KEYS, *re.findall(r"\w+", said.partition("one of (")[2])]
            raise InputError(f"MBARI_LABEL_STORE has a key `{key}` that is not known{_nearest(key, known)}")
        if said:
            raise InputError(f"The value of `{key}` in MBARI_LABEL_STORE cannot be used; see pymongo's options.")


def _hosts(hosts: str) -> str:
    """The servers as a name: sorted, in small letters, without the usual port."""
    each = (host if "%" in host else host.lower() for host in hosts.split(","))
    return ",".join(sorted(host.removesuffix(":27017") for host in each))


def _nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence on a name that there is not."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean `{near[0]}`?" if near else "."
