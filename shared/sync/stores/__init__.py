"""Label stores: the databases of record that corrections are sent to, each behind the interface of `base.py`.

A new kind is one module with a function that takes the URI and the token, one line in `KINDS`, and one small test
file that runs the conformance suite of the tests.
"""

import re
from collections.abc import Callable

from ...errors import InputError
from .base import Store
from .mongo import open_mongo


def _open_tator(uri: str, token: str | None = None) -> Store:
    from .tator import open_tator  # here, since httpx takes its time and registering a plugin must not

    return open_tator(uri, token)


KINDS: dict[str, Callable[[str, str | None], Store]] = {
    "mongodb": open_mongo,
    "mongodb+srv": open_mongo,
    "tator+https": _open_tator,
    "tator+http": _open_tator,
}


def open_store(uri: str | None, token: str | None = None) -> Store:
    """The label store that the secrets name; it is not asked anything yet.

    Args:
        uri: the secret MBARI_LABEL_STORE; its scheme says which kind of store it is
        token: the secret MBARI_LABEL_STORE_TOKEN, if there is one

    Raises:
        InputError: no URI, or one that cannot be used; it never repeats the URI, which may hold a password
        StorageError: its server cannot be found (`mongodb+srv` asks the name service at once)
    """
    uri, token = (uri or "").strip(), (token or "").strip() or None
    if not uri:
        raise InputError(
            "No label store is set: an admin sets the secret MBARI_LABEL_STORE, for one to "
            "mongodb://host/<database>?collection=<name>, or for Tator to "
            "tator+https://host/<project>?version=<version>&type=<localization type>."
        )
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", uri, re.IGNORECASE)
    kind = KINDS.get(scheme[1].lower()) if scheme else None
    if kind is None:
        raise InputError(
            "The secret MBARI_LABEL_STORE names no kind of label store that there is; it begins with one of: "
            f"{', '.join(f'{name}://' for name in KINDS)}."
        )
    return kind(uri, token)
