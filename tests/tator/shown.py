"""How rows look in answers of a stand-in Tator server."""

from collections.abc import Iterable, Sequence
from typing import Any

from tests.tator.rows import Change, Data, Kind, Medium, Membership, Project, Row, shown_time
from tests.tator.search import Broken

# Columns that alone are not enough for a list: the answer comes to nothing (12).
_NOT_PLAIN = {"created_datetime", "modified_datetime", "elemental_id"}
# What image files say of themselves; here all media are without files.
_OF_FILES = ("num_frames", "fps", "codec", "width", "height", "summary_level", "gid", "uid")


def localization(row: Row, effective: int = 0) -> dict[str, Any]:
    """A localization with all its columns."""
    x, y, width, height = row.box
    return {
        "id": row.id,
        "project": row.project,
        "type": row.type,
        "media": row.media,
        "thumbnail_image": None,
        "version": row.version,
        "attributes": row.attributes,
        "created_by": row.created_by,
        "modified_by": row.modified_by,
        "user": row.user,
        "variant_deleted": row.deleted,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "u": None,
        "v": None,
        "points": None,
        "frame": row.frame,
        "parent": None,
        "mark": row.mark,
        "effective_permission": effective,
        "created_datetime": shown_time(row.created),
        "modified_datetime": shown_time(row.modified),
        "elemental_id": row.elemental_id,
    }


def chosen(rows: Iterable[dict[str, Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Only these fields of each row; `attributes.X` is one attribute of it.

    Raises:
        Broken: a field there is not, or none that is a plain column (02, 12)
    """
    attributes = [name.partition(".")[2] for name in fields if name.startswith("attributes.")]
    columns = [name for name in fields if not name.startswith("attributes.")]
    if set(columns) <= _NOT_PLAIN:
        raise Broken
    found = []
    for row in rows:
        if not row.keys() >= set(columns):
            raise Broken
        one = {name: row[name] for name in columns}
        if attributes:  # what an attribute that a row does not have looks like is not recorded
            one["attributes"] = {name: row["attributes"].get(name) for name in attributes}
        found.append(one)
    return found


def medium(one: Medium, effective: int = 0) -> dict[str, Any]:
    """A media with all its columns."""
    return {
        "id": one.id,
        "project": one.project,
        "type": one.type,
        "name": one.name,
        "attributes": one.attributes,
        "elemental_id": one.elemental_id,
        "primary_section": 1,
        "created_datetime": shown_time(one.created),
        "created_by": one.created_by,
        "modified_datetime": shown_time(one.modified),
        "modified_by": one.modified_by,
        "md5": one.md5,
        "media_files": {},
        "archive_state": "live",
        "archive_status_date": shown_time(one.created),
        "effective_permission": effective,
        **dict.fromkeys((*_OF_FILES, "last_edit_start", "last_edit_end")),
    }


def project(one: Project, membership: Membership, effective: int = 0) -> dict[str, Any]:
    """A project as `Projects` lists it."""
    return {
        "id": one.id,
        "name": one.name,
        "summary": one.summary,
        "organization": 1,
        "enable_downloads": True,
        "bucket": None,
        "upload_bucket": None,
        "backup_bucket": None,
        "elemental_id": one.elemental_id,
        "thumb": None,
        "created": shown_time(one.created),
        "num_files": 0,
        "size": 0,
        "duration": 0,
        "usernames": [],
        "attribute_types": [],
        "extended_info": {},
        "effective_permission": effective,
        "permission": membership.permission,
    }


def membership(one: Membership, project: int) -> dict[str, Any]:
    """A member as `Memberships` lists it."""
    user = one.user.shown()
    return {
        "id": one.id,
        "project": project,
        "user": user["id"],
        "default_version": one.default_version,
        **{name: user[name] for name in ("username", "first_name", "last_name", "email")},
        "permission": one.permission,
    }


def kind(one: Kind, media: list[int], effective: int = 0) -> dict[str, Any]:
    """A localization type as `LocalizationTypes` lists it."""
    return {
        "id": one.id,
        "project": one.project,
        "media": media,
        "effective_permission": effective,
        "name": one.name,
        "description": "",
        "dtype": one.dtype,
        "attribute_types": [{**each, "required": False, "description": ""} for each in one.attribute_types],
        "color_map": None,
        "line_width": 3,
        "visible": True,
        "drawable": True,
        "grouping_default": True,
        "elemental_id": one.elemental_id,
    }


def media_kind(one: Kind) -> dict[str, Any]:
    """A media type; the answer of `MediaTypes` is not recorded: what the two kinds of type surely have in common."""
    shown = kind(one, [])
    names = ("id", "project", "name", "description", "dtype", "attribute_types", "elemental_id")
    return {name: shown[name] for name in names}


def change(entry: Change) -> dict[str, Any]:
    """An entry of the change log."""
    return {
        "id": entry.id,
        "project": entry.project,
        "user": entry.user,
        "description_of_change": {
            side: [{"name": name, "value": value} for name, value in values]
            for side, values in (("new", entry.new), ("old", entry.old))
        },
        "modified_datetime": shown_time(entry.at),
    }


def changes(data: Data, number: int, row: int | None, user: int | None) -> list[dict[str, Any]]:
    """The change log of a project, of one row or user; in the order of time (that by user was recorded unsorted)."""
    return [
        change(entry)
        for entry in data.log
        if entry.project == number and (row is None or row in entry.rows) and (user is None or user == entry.user)
    ]
