"""What changes rows of a stand-in Tator server: bulk and single PATCH, POST, DELETE, with marks and a change log."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.tator import checks, shown, sql
from tests.tator.rows import Data, Kind, Medium, Row, User, created_values
from tests.tator.search import Broken, Crash, Query, Refused, select, select_media

_NO_VERSION = (
    'insert or update on table "main_localization" violates foreign key constraint '
    '"main_localization_version_a667c80a_fk_main_version_id"\n'
    'DETAIL:  Key (version)=({}) is not present in table "main_version".\n'
)


class Missing(Exception):
    """A 404 with this message."""


class Forbidden(Exception):
    """A 403."""


Rule = Callable[[Mapping[str, Any]], None]  # raises Refused for attributes that a rule of the server's own forbids


# --- bulk ---


def found(data: Data, project: int, query: Query, media: bool) -> list[Any]:
    """The rows that a bulk change means: with `ids`, superseded ones too (03 D8); the count is checked here.

    Raises:
        Refused: the filters cannot be used; `count` says otherwise
    """
    query.show_all_marks = bool(query.ids)
    if query.start is not None or query.stop is not None:
        raise Refused("Cannot create distinct fields once a slice has been taken.")
    try:
        rows = select_media(data, project, query) if media else select(data, project, query)
    except Crash as error:  # an id that is none: here it is a message, in a list a crash
        raise Refused(f"['“{error}” is not a valid UUID.']") from None
    except Broken:  # not recorded for a change; what Django says of such a text
        raise Refused("A string literal cannot contain NUL (0x00) characters.") from None
    if query.count is not None and query.count != len(rows):
        raise Refused(f"Safety check failed - expected {query.count} but would update {len(rows)}")
    return rows


def permitted(data: Data, project: int, query: Query, media: bool) -> None:
    """The fine-grain mode's look at rights: without any row there is no right (06c F6).

    It does not look at `object_search` (13, step 4, was recorded in that mode).

    Raises:
        Forbidden: no row is meant
    """
    query.show_all_marks = bool(query.ids)
    search, query.object_search = query.object_search, None
    try:
        rows = select_media(data, project, query) if media else select(data, project, query)
    except (Broken, Crash):
        return
    finally:
        query.object_search = search
    if not rows:
        raise Forbidden


def bulk(
    data: Data, project: int, rows: Sequence[Any], body: Mapping[str, Any], user: User, rule: Rule, media: bool
) -> str:
    """A bulk change of rows that were found before; nothing is looked at again.

    Returns:
        the message

    Raises:
        Refused: it does not work; attributes that came first may be written already
    """
    if rows:
        if len({row.type for row in rows}) > 1:
            raise Refused("When doing a bulk patch the type id of all objects must be the same.")
        owner = data.projects[project]
        kind = (owner.media_kinds if media else owner.kinds)[rows[0].type]
        values = checks.attributes(kind, body.get("attributes", {}))
        rule(values)
        version = body.get("new_version")
        if version is not None and version not in owner.versions:
            raise Refused(_NO_VERSION.format(version), _NO_VERSION.format(version))
        if media or body.get("in_place") or body.get("ids"):
            _in_place(data, rows, kind, values, body, user, media)
        else:
            _as_marks(data, rows, kind, values, body, user)
        data.written.update(row.elemental_id for row in rows)
    # The word for media is not recorded; so reads Tator's public source.
    return f"Successfully patched {len(rows)} medias!" if media else f"Successfully updated {len(rows)} localizations!"


def _in_place(
    data: Data,
    rows: Sequence[Any],
    kind: Kind,
    values: Mapping[str, Any],
    body: Mapping[str, Any],
    user: User,
    media: bool,
) -> None:
    """`modified_by` changes, `modified_datetime` does not (03 A2); each attribute is written by itself (08 P2)."""
    first = rows[0]
    before = {"_modified_by": first.modified_by, **first.attributes}
    for row in rows if not media else ():
        row.modified_by = user.id
        if body.get("new_version") is not None:
            row.version = body["new_version"]
    for name, value in values.items():
        stored = sql.pasted(value)
        for row in rows:
            row.attributes[name] = stored
    for name, value in _reset(kind, body).items():
        for row in rows:
            row.attributes[name] = value
    if not media:  # what the change log says of media is not recorded
        _note(data, user, [row.id for row in rows], first, before, ["_modified_by", *values])


def _as_marks(
    data: Data, rows: Sequence[Row], kind: Kind, values: Mapping[str, Any], body: Mapping[str, Any], user: User
) -> None:
    """New rows, whether the old ones are the latest or not; they have no entry in the change log (07 B6)."""
    # That values arrive whole here, unlike in place, is not recorded, but so reads Tator's public source.
    stored = {**values, **_reset(kind, body)}
    _refuse_nul(stored)
    for row in rows:
        _mark(data, row, stored, user, body.get("new_version"))


def _reset(kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    """`null_attributes` and `reset_attributes`; what the first leaves in the row is not recorded."""
    defaults = {name: (kind.attribute(name) or {}).get("default") for name in body.get("reset_attributes", [])}
    return dict.fromkeys(body.get("null_attributes", [])) | defaults


def _mark(data: Data, row: Row, values: Mapping[str, Any], user: User, version: int | None = None) -> Row:
    """A copy of a row on top of the marks of its element, with these attributes."""
    version = row.version if version is None else version
    marks = data.marks(row.elemental_id, version)
    new = row.copy(id=0, version=version, modified=data.now(), modified_by=user.id)
    new.mark = marks[-1].mark + 1 if marks else 0
    new.attributes.update(values)
    return data.add(new)


def _note(
    data: Data, user: User, rows: Sequence[int], first: Row, before: Mapping[str, Any], names: Sequence[str]
) -> None:
    after = {"_modified_by": first.modified_by, **first.attributes}
    ordered = sorted(names, key=lambda name: (not name.startswith("_"), len(name), name))  # as jsonb has them
    changed = [name for name in ordered if name not in before or before[name] != after[name]]
    new = {name: after[name] for name in changed}
    data.note(first.project, user.id, rows, new, {name: before.get(name) for name in changed})


# --- one ---


def one(data: Data, id: str = "", version: str = "", element: str = "", mark: int | None = None) -> Row:
    """The localization of an address: by id, or the latest mark of an element in a version (deleted or not).

    Raises:
        Missing: there is none
        Refused: that is no UUID
    """
    if id:
        if int(id) not in data.rows:
            raise Missing("No Localization matches the given query.")
        return data.rows[int(id)]
    try:
        element = str(uuid.UUID(element))
    except ValueError:
        raise Refused(f"['“{element}” is not a valid UUID.']") from None
    marks = [row for row in data.marks(element, int(version)) if mark in (None, row.mark)]
    if not marks:
        raise Missing("")
    return marks[-1]


def single(data: Data, row: Row, body: Mapping[str, Any], user: User, effective: int, rule: Rule) -> dict[str, Any]:
    """A change of one: of the latest mark, whichever the address meant; in place, or as a new mark.

    Raises:
        Refused: an attribute cannot be written; `pedantic` and an older mark
    """
    latest = data.marks(row.elemental_id, row.version)[-1]
    if body.get("pedantic") and not body.get("in_place") and row is not latest:
        name = data.projects[row.project].versions[row.version]["name"]
        raise Refused(
            f"Pedantic mode is enabled. Can not edit prior object {row.id}, must only edit latest mark on version."
            f"Object is mark {row.mark} of {latest.mark} for {name}/{row.elemental_id}"
        )
    kind = data.projects[row.project].kinds[row.type]
    values = checks.attributes(kind, body.get("attributes", {}))
    rule(values)
    _refuse_nul(values)
    values |= _reset(kind, body)
    data.written[row.elemental_id] += 1
    said = f"Localization {row.elemental_id}@{row.version}/{latest.mark} successfully updated!"
    if body.get("in_place"):
        before = {"_modified_by": latest.modified_by, **latest.attributes}
        latest.attributes.update(values)
        latest.modified, latest.modified_by = data.now(), user.id
        _note(data, user, [latest.id], latest, before, ["_modified_by", *values])
    else:
        latest = _mark(data, latest, values, user)
    return {"message": said, "object": shown.localization(latest, effective)}


def _refuse_nul(values: Mapping[str, Any]) -> None:
    if "\\u0000" in json.dumps(list(values.values())):
        message = "unsupported Unicode escape sequence\nLINE 1: ...\nDETAIL:  \\u0000 cannot be converted to text.\n"
        raise Refused(message, message)


def single_medium(data: Data, one: Medium, body: Mapping[str, Any], rule: Rule) -> dict[str, Any]:
    """A change of one media; not recorded. So reads Tator's public source: through SQL, like a bulk change.

    Raises:
        Refused: an attribute cannot be written
    """
    kind = data.projects[one.project].media_kinds[one.type]
    values = checks.attributes(kind, body.get("attributes", {}))
    rule(values)
    for name, value in values.items():
        one.attributes[name] = sql.pasted(value)
    data.written[one.elemental_id] += 1
    return {"message": f"Media {one.id} successfully updated!"}


def delete(data: Data, row: Row, user: User, prune: bool) -> dict[str, Any]:
    """A new mark that says that the element is gone; with `prune`, the row itself goes."""
    said = f"Localization {row.version}/{row.elemental_id}@@{row.mark} successfully deleted!"
    if prune:
        data.remove(row)
        return {"message": said, "id": row.id}
    gone = _mark(data, data.marks(row.elemental_id, row.version)[-1], {}, user)
    gone.deleted, gone.created = True, gone.modified
    return {"message": said, "id": gone.id}


def create(data: Data, project: int, body: Any, user: User) -> dict[str, Any]:
    """New localizations, 500 at most; one whose element is there already becomes its next mark (01).

    Raises:
        Refused: the body does not keep to the schema, or an id is none
    """
    specs = body if isinstance(body, list) else [body]
    if len(specs) > 500:
        raise checks.invalid(body, "array", [f"{body!r} is too long"])
    now = data.now()
    rows = []
    for spec in specs:
        element = spec.get("elemental_id") or str(uuid.uuid4())
        try:
            element = str(uuid.UUID(element))
        except ValueError as error:
            raise Refused(f"Could not convert '{element}' into a UUID", str(error)) from None
        kind = data.projects[project].kinds[spec["type"]]
        known = {name: value for name, value in spec.get("attributes", {}).items() if kind.attribute(name)}
        marks = data.marks(element, spec["version"])
        rows.append(
            Row(
                id=0,
                project=project,
                type=spec["type"],
                media=spec["media_id"],
                version=spec["version"],
                elemental_id=element,
                mark=marks[-1].mark + 1 if marks else 0,
                attributes=checks.attributes(kind, known),
                created_by=user.id,
                modified_by=user.id,
                user=user.id,
                deleted=False,
                box=tuple(spec.get(name, 0.0) for name in ("x", "y", "width", "height")),
                frame=spec.get("frame", 0),
                created=now,
                modified=now,
            )
        )
    for row in rows:
        data.add(row)
        new = created_values(row)
        data.note(project, user.id, [row.id], new, dict.fromkeys(new))
    return {"message": f"Successfully created {len(rows)} localizations!", "id": [row.id for row in rows]}
