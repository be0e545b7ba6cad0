"""The URI of a Tator label store, checked before anything is asked.

No message here repeats a value: somebody may have put the token where it does not belong.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

from ...errors import InputError

KEYS = (
    "version",
    "type",
    "media_type",
    "attribute",
    "verified",
    "in_place",
    "chunk",
    "pause",
    "timeout",
    "name",
)
MOST_CHANGES = 2_000
_FORM = "tator+https://host/<project>?version=<version>&type=<localization type>&attribute=<attribute>"
_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Settings:
    """What the URI says; projects, versions and types by name or by id.

    Attributes:
        name: the store in words, the same for all URIs that mean the same labels
        base: `https://host[:port]`
        project: the project
        version: the version; None for labels of whole images, which have none
        type: the localization type, or the media type for labels of whole images
        media: whether the labels are those of whole images
        attribute: the attribute that is the label
        verified: a boolean attribute that is set true where a label was written
        in_place: whether a write changes the row; otherwise the row stays as a mark of its own, under a new one
        chunk: changes in one write
        pause: seconds between two requests that write
        timeout: seconds to wait for an answer
    """

    name: str
    base: str
    project: str
    version: str | None
    type: str
    media: bool = False
    attribute: str = "Label"
    verified: str | None = None
    in_place: bool = True
    chunk: int = 500
    pause: float = 0.0
    timeout: float = 30.0

    @property
    def chosen(self) -> str:
        """What changes how labels are written, where it is not the usual: such as "in_place=0, chunk=50"."""
        said = {
            "verified": repr(self.verified),
            "in_place": f"{self.in_place:d}",
            "chunk": f"{self.chunk}",
            "pause": f"{self.pause:g}",
        }
        return ", ".join(f"{key}={said[key]}" for key in said if getattr(self, key) != getattr(Settings, key))


def read_uri(uri: str) -> Settings:
    """The settings in a URI.

    Raises:
        InputError: it cannot be used; it says which key, never a value
    """
    if "#" in uri:
        raise InputError("MBARI_LABEL_STORE holds a `#`, after which nothing would be read: write it as %23.")
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower().removeprefix("tator+")
    place, _, query = rest.partition("?")
    host, _, path = place.partition("/")
    if "@" in host or not re.fullmatch(r"(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", host.lower()):
        raise InputError(
            f"MBARI_LABEL_STORE names no host, or one that cannot be: write it as {_FORM}; there is no user in it, "
            "and the token is in the secret MBARI_LABEL_STORE_TOKEN."
        )
    project = unquote(path.removesuffix("/"))
    if not _is_name(project) or "/" in path.removesuffix("/"):
        raise InputError(f"MBARI_LABEL_STORE names no project: write it as {_FORM}.")
    given = _keys(query)
    media = "media_type" in given
    _check_which(given, media)
    texts = {key: given[key] for key in ("attribute", "verified") if key in given}
    for key in ("version", "type", "media_type", "attribute", "verified"):
        if key in given and (not _is_name(given[key]) or given[key].startswith("$")):
            raise InputError(f"The key `{key}` of MBARI_LABEL_STORE is no name that can be.")
    which = given["media_type"] if media else given["type"]
    if texts.get("attribute", Settings.attribute) == texts.get("verified"):
        raise InputError("The keys `attribute` and `verified` of MBARI_LABEL_STORE need attributes of their own.")
    host = host.lower().removesuffix(f":{_PORTS[scheme]}")
    return Settings(
        name=_name(f"tator+{scheme}://{host}", project, given, media),
        base=f"{scheme}://{host}",
        project=project,
        version=given.get("version"),
        type=which,
        media=media,
        **texts,
        in_place=_number(given, "in_place", "1", "0 or 1", 0, 1, "[01]") == 1,
        chunk=int(
            _number(given, "chunk", "500", f"a whole number from 1 to {MOST_CHANGES:,}", 1, MOST_CHANGES, r"\d+")
        ),
        pause=_number(given, "pause", "0", "a number of seconds up to 60", 0, 60),
        timeout=_number(given, "timeout", "30", "a number of seconds from 0.1 to 600", 0.1, 600),
    )


def _keys(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]{1,60}", key):
            raise InputError(
                "The part of MBARI_LABEL_STORE after the question mark is key=value pairs joined by &: one is not."
            )
        key = key.lower()
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            known = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(KEYS)}."
            raise InputError(f"MBARI_LABEL_STORE has a key `{key}` that is not known; {known}")
        if key in given:
            raise InputError(f"MBARI_LABEL_STORE has the key `{key}` twice.")
        given[key] = unquote_plus(value)
    return given


def _check_which(given: dict[str, str], media: bool) -> None:
    """InputError unless the keys say which labels are meant: those of localizations, or those of whole images."""
    for key in ("version", "type"):
        if media and key in given:
            raise InputError(f"MBARI_LABEL_STORE has both `media_type` and `{key}`: labels of whole images have none.")
        if not media and key not in given:
            raise InputError(
                f"MBARI_LABEL_STORE lacks the key `{key}`: write it as {_FORM}, or with `media_type` in place of "
                "`version` and `type` for labels of whole images."
            )
    if media and "in_place" in given:
        raise InputError("MBARI_LABEL_STORE has `media_type` and `in_place`: Tator keeps no marks of whole images.")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 200 and text.isprintable() and text.strip() == text and "\ufffd" not in text


def _name(server: str, project: str, given: dict[str, str], media: bool) -> str:
    """The store in words; the key `name` stands for the server's address alone, never for what labels are meant."""
    if "name" in given:
        if not re.fullmatch(r"\w[\w .:/-]{0,99}", given["name"]):
            raise InputError(
                "The key `name` of MBARI_LABEL_STORE is at most 100 letters, digits, spaces, or _ . : / -."
            )
        server = given["name"]
    keys = ("media_type",) if media else ("version", "type")
    meant = {key: given[key] for key in keys} | {"attribute": given.get("attribute", Settings.attribute)}
    parts = [f"{key}={_shown(value)}" for key, value in meant.items()]
    return f"{server}/{_shown(project).replace('/', '%2F')}?{'&'.join(parts)}"


def _shown(text: str) -> str:
    """A name that can be told from what stands around it, and still be read."""
    return re.sub("[%&=?#]", lambda sign: f"%{ord(sign[0]):02X}", text)


def _number(
    given: dict[str, str], key: str, usual: str, said: str, least: float, most: float, form: str = r"\d+(\.\d+)?"
) -> float:
    text = given.get(key, usual)
    if not re.fullmatch(form, text, re.ASCII) or len(text) > 9 or not least <= float(text) <= most:
        raise InputError(f"The key `{key}` of MBARI_LABEL_STORE is {said}.")
    return float(text)
