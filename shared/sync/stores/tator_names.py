"""Which labels the names in a Tator URI mean: names become ids once; a wrong one is said with the names there are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import StorageError
from .tator_api import Api, Reply
from .tator_uri import Settings

TEXTS = ("string", "enum")  # what an attribute that holds labels is
WRITERS = ("Can Edit", "Can Transfer", "Can Execute", "Full Control", "Creator")  # permissions in a project

_MODIFY = 0x8  # of the bits of `effective_permission`, which is 0 where the server keeps permissions by project alone
_SHOWN = 20  # names in one message


@dataclass(frozen=True)
class Place:
    """Where the labels are, by id.

    Attributes:
        project: with `version` and `type` what every request carries
        version: None for labels of whole images
        type: of localizations, or of media
        said: all of it with names, for people
        permission: the user's in the project, as Tator calls it; None where it does not say
    """

    project: int
    version: int | None
    type: int
    said: str
    permission: str | None


def find(api: Api, settings: Settings) -> Place:
    """Asks the server for everything that the URI names.

    Raises:
        Unreachable: no answer
        StorageError: something is not there under this name, or cannot be what it is to be
    """
    project = _project(api, settings)
    number = project["id"]
    version, said = None, f"project {project.get('name')!r} ({number})"
    if settings.version is not None:
        found = _pick(api, "version", settings.version, _list(api, f"Versions/{number}"))
        version = found["id"]
        said += f", version {found.get('name')!r} ({version})"
    key, what = ("media_type", "MediaTypes") if settings.media else ("type", "LocalizationTypes")
    kind = _pick(api, key, settings.type, _list(api, f"{what}/{number}"))
    kinds = {each.get("name"): each.get("dtype") for each in kind.get("attribute_types") or []}
    _check_attribute(api, "attribute", settings.attribute, kinds, TEXTS)
    if settings.verified is not None:
        _check_attribute(api, "verified", settings.verified, kinds, ("bool",))
    said += f", {'media type' if settings.media else 'type'} {kind.get('name')!r} ({kind['id']})"
    said += f", attribute {settings.attribute!r} of {_listed(kinds)}"
    said += f"; {settings.chosen}" if settings.chosen else ""
    return Place(number, version, kind["id"], said, project.get("permission"))


def permission(api: Api, place: Place, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the user may do, in words, by some whole rows where permissions are kept by row.

    Raises:
        StorageError: that is not writing
    """
    bits = rows[0].get("effective_permission") if rows else None
    if isinstance(bits, int) and bits:
        if not bits & _MODIFY:
            raise denied(api, "write to", "its permission by row is to read")
        return "the token may write (permissions by row)"
    if place.permission is None:
        return "whether the token may write is not known"
    if place.permission not in WRITERS:
        raise denied(api, "write to", f"its permission is {place.permission!r}")
    return f"the token may write (permission {place.permission!r})"


def denied(api: Api, doing: str, why: str = "") -> StorageError:
    """The error for a user who lacks a permission."""
    return StorageError(
        f"The user of MBARI_LABEL_STORE_TOKEN may not {doing} {api.name}{f' ({why})' if why else ''}: an admin of the "
        "Tator project can give the permission 'Can Edit'."
    )


def refused(api: Api, doing: str, reply: Reply) -> StorageError:
    """The error for an answer that says no."""
    if reply.status == 403:
        return denied(api, doing)
    said = reply.message.rstrip(".") or reply.status
    return StorageError(f"It was not possible to {doing} the label store {api.name}: {said}.")


def _project(api: Api, settings: Settings) -> Mapping[str, Any]:
    if settings.project.isdecimal():
        reply = api.ask("GET", f"Project/{int(settings.project)}")
        if reply.ok and isinstance(reply.body, dict):
            return reply.body
        if reply.status != 404:
            raise refused(api, "read", reply)
    return _pick(api, "project", settings.project, _list(api, "Projects"))


def _list(api: Api, path: str) -> list[Mapping[str, Any]]:
    """One of the server's short lists; unlike those of localizations and media, they are sent in one piece."""
    reply = api.ask("GET", path)
    if not reply.ok:
        raise refused(api, "read", reply)
    if not isinstance(reply.body, list) or not all(isinstance(each, dict) and "id" in each for each in reply.body):
        raise StorageError(f"The label store {api.name} answers {path.split('/')[0]} with something else than a list.")
    return reply.body


def _pick(api: Api, key: str, wanted: str, there: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The one of this name, else of this id."""
    found = [each for each in there if each.get("name") == wanted] or [e for e in there if str(e["id"]) == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(str(each["id"]) for each in found)
        raise StorageError(f"The label store {api.name} has several of the name {wanted!r} as {key}: use an id, {ids}.")
    names = [str(each.get("name")) for each in there]
    raise StorageError(f"The label store {api.name} has no {key} {wanted!r}{_near(wanted, names)}")


def _check_attribute(
    api: Api, key: str, wanted: str, there: Mapping[str | None, str | None], may: Sequence[str]
) -> None:
    """StorageError where there is no such attribute, since a filter on it would be dropped without a word."""
    if wanted not in there:
        names = [str(name) for name in there]
        raise StorageError(f"The type in {api.name} has no attribute {wanted!r} (`{key}`){_near(wanted, names)}")
    if there[wanted] not in may:
        raise StorageError(
            f"The attribute {wanted!r} (`{key}`) in {api.name} is of the kind {there[wanted]!r}, "
            f"not {' or '.join(may)}."
        )


def _near(wanted: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return f"; there {'is' if len(names) == 1 else 'are'} {_listed(names)}{hint}"


def _listed(names: Any) -> str:
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) or "none") + more
