"""The URI of a MongoDB label store: what it may say, what it is called, and that it gives nothing away."""

import contextlib

import pytest

from shared.errors import InputError, StorageError
from shared.sync.stores import open_store


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mongodb://h/d", "names no collection"),
        ("mongodb://h/d?collection=", "names no collection"),
        ("mongodb://h/d?collection=$cmd", "names no collection"),
        ("mongodb://h/d?collection=a%00b", "names no collection"),
        ("mongodb://h/?collection=c", "names no database"),
        ("mongodb://h?collection=c", "names no database"),
        ("mongodb://h/d.c?collection=c", "names no database"),
        ("mongodb:///d?collection=c", "hosts"),
        ("mongodb://h/d?colection=c", "`colection` that is not known; did you mean `collection`\\?$"),
        ("mongodb://ana@h/d?collection=c", "a user without a password: set the secret MBARI_LABEL_STORE_TOKEN"),
        ("mongodb://h/d?collection=c&lable=x", "`lable` that is not known; did you mean `label`"),
        ("mongodb://h/d?collection=c&retrywrite=false", "`retrywrite` that is not known; did you mean `retrywrites`"),
        ("mongodb://h/d?collection=c&zzzz=1", "`zzzz` that is not known\\.$"),
        ("mongodb://h/d?collection=c&collection=d", "`collection` twice"),
        ("mongodb://h/d?collection=c&label", "key=value"),
        ("mongodb://h/d?collection=c&label=", "`label`.*path"),
        ("mongodb://h/d?collection=c&label=$where", "`label`.*path"),
        ("mongodb://h/d?collection=c&label=a.$b", "`label`.*path"),
        ("mongodb://h/d?collection=c&label=a..b", "`label`.*path"),
        ("mongodb://h/d?collection=c&label=a.", "`label`.*path"),
        ("mongodb://h/d?collection=c&id=a.0", "`id`.*path"),
        ("mongodb://h/d?collection=c&label=a%00b", "`label`.*path"),
        ("mongodb://h/d?collection=c&label=_id", "`label`.*`_id`"),
        ("mongodb://h/d?collection=c&modified=label", "`label` and `modified`|`modified` and `label`"),
        ("mongodb://h/d?collection=c&label=a&history=a.b", "`label` and `history`"),
        ("mongodb://h/d?collection=c&id_type=integer", "string, int, objectid, uuid"),
        ("mongodb://h/d?collection=c&name=a%0Ab", "`name`"),
        ("mongodb://h/d?collection=c&name=", "`name`"),
        ("mongodb://h/d?collection=c&chunk=0", "1 to 1,000"),
        ("mongodb://h/d?collection=c&chunk=1001", "1 to 1,000"),
        ("mongodb://h/d?collection=c&chunk=ten", "1 to 1,000"),
        ("mongodb://h/d?collection=c&socketTimeoutMS=soon", "`socketTimeoutMS`"),
        ("mongodb://h/d?collection=c&tlsCAFile=/nowhere/ca.pem", "`tlsCAFile`"),
        ("mongodb://h:70000/d?collection=c", "hosts, ports"),
        ("mongodb://h:port/d?collection=c", "hosts, ports"),
        ("mongodb://h1,h2/d?collection=c&directConnection=true", "hosts, ports"),
        ("mongodb://ana:{}@h/d?collection=c", "percent-encode"),
        ("mongodb://ana:{}/x@h/d?collection=c", "percent-encode"),
        ("mongodb://ana:12/{}@h/d?collection=c", "percent-encode"),
        ("mongodb://ana:a?{}=1@h/d?collection=c", "percent-encode"),
        ("mongodb://ana:12/b?{}=1@h/d?collection=c", "percent-encode"),
        ("mongodb://ana:{}@h/d?collection=c&chunk=x", "`chunk`"),
        ("mongodb://ana:x@h/d?collection=c&tlsCertificateKeyFilePassword={}&tls=maybe", "`tls`"),
    ],
)
def test_settings_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_store(uri.format("hunter2%zz@:"))
    shown: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert "hunter2" not in "".join(shown)


def test_a_server_whose_name_is_not_known_is_a_matter_of_storage() -> None:
    with pytest.raises(StorageError, match="not found by its name") as caught:
        open_store("mongodb+srv://ana:hunter2@labels.invalid/d?collection=c&connectTimeoutMS=500")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://h1,h2:27018/d?collection=c",
        "mongodb://h2:27018,H1:27017/d?collection=c",
        "mongodb://ana:hunter2@h1,h2:27018/d?collection=c&authSource=admin&tls=true",
        "mongodb://bea@h1,h2:27018/d?chunk=5&collection=c&replicaSet=rs&id=elemental_id&history=h&id_type=int",
        "MONGODB://h1,h2:27018/d?COLLECTION=c&label=label",
    ],
)
def test_the_name_is_the_same_for_the_same_labels(uri: str) -> None:
    with contextlib.closing(open_store(uri, "hunter2")) as store:
        assert store.name == "mongodb://h1,h2:27018/d.c"


@pytest.mark.parametrize("server", ["h1", "ana:hunter2@h2:27018,h3"])
def test_a_name_of_its_own_stays_when_the_address_changes(server: str) -> None:
    with contextlib.closing(open_store(f"mongodb://{server}/d?collection=c&name=the+lab/labels&id=_id")) as store:
        assert store.name == "the lab/labels/d.c?id=_id"


def test_a_name_does_not_stand_for_database_collection_and_paths() -> None:
    places = ["d?collection=c", "e?collection=c", "d?collection=f", "d?collection=c&label=l", "d?collection=c&id=_id"]
    stores = [open_store(f"mongodb://h/{place}&name=lab") for place in places]
    assert [store.name for store in stores] == ["lab/d.c", "lab/e.c", "lab/d.f", "lab/d.c?label=l", "lab/d.c?id=_id"]
    for store in stores:
        store.close()


def test_other_labels_of_the_same_collection_have_another_name() -> None:
    uris = ["?collection=c", "?collection=c&label=quality", "?collection=c&id=_id", "?collection=d"]
    stores = [open_store(f"mongodb://h/d{uri}") for uri in uris]
    assert [store.name for store in stores] == [
        "mongodb://h/d.c",
        "mongodb://h/d.c?label=quality",
        "mongodb://h/d.c?id=_id",
        "mongodb://h/d.d",
    ]
    for store in stores:
        store.close()
