"""Which store a URI means."""

import traceback

import pytest

from shared.errors import InputError
from shared.sync.stores import open_store

PASSWORD = "hunter2"


@pytest.mark.parametrize("uri", [None, "", "  \n"])
def test_says_which_secret_is_missing(uri: str | None) -> None:
    with pytest.raises(InputError, match="MBARI_LABEL_STORE"):
        open_store(uri, None)


@pytest.mark.parametrize(
    "uri",
    [
        "postgres://ana:hunter2@host/db",
        "ana:hunter2@host/db",
        "mongodb:ana:hunter2@host/db",
        "hunter2",
        "://hunter2",
        "mongodb+tls://ana:hunter2@host/db?collection=labels",
    ],
)
def test_says_which_kinds_there_are_without_repeating_the_uri(uri: str) -> None:
    with pytest.raises(InputError, match="mongodb://, mongodb\\+srv://") as caught:
        open_store(uri, PASSWORD)  # a constant, since a traceback shows this line
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("uri", ["mongodb://host/db?collection=labels", " MongoDB://host/db?collection=labels\n"])
def test_opens_a_mongodb_without_asking_it(uri: str) -> None:
    store = open_store(uri)
    assert store.name == "mongodb://host/db.labels"
    store.close()
