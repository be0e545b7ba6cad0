"""The URI of a Tator label store: what it says, and what is wrong with it, before anything is asked."""

import traceback

import pytest

from shared.errors import InputError
from shared.sync.stores import open_store
from shared.sync.stores.tator_uri import Settings, read_uri

SECRET = "0123456789abcdef0123456789abcdef01234567"
USUAL = "tator+https://host/lab?version=Baseline&type=Boxes"


def test_says_what_labels_are_meant() -> None:
    uri = "tator+https://Host:443/Planktivore%20lab/?version=Base%26line&type=Boxes&attribute=Label+1&chunk=20"
    assert read_uri(uri + "&pause=0.5&in_place=0&verified=verified&timeout=5") == Settings(
        name="tator+https://host/Planktivore lab?version=Base%26line&type=Boxes&attribute=Label 1",
        base="https://host",
        project="Planktivore lab",
        version="Base&line",
        type="Boxes",
        attribute="Label 1",
        verified="verified",
        in_place=False,
        chunk=20,
        pause=0.5,
        timeout=5.0,
    )


def test_what_is_not_said_is_usual() -> None:
    settings = read_uri(USUAL)
    assert (settings.attribute, settings.verified, settings.in_place) == ("Label", None, True)
    assert (settings.chunk, settings.pause, settings.timeout, settings.media) == (500, 0.0, 30.0, False)


def test_labels_of_whole_images() -> None:
    settings = read_uri("tator+http://127.0.0.1:8080/7?media_type=Images")
    assert (settings.media, settings.type, settings.version) == (True, "Images", None)
    assert settings.base == "http://127.0.0.1:8080"
    assert settings.name == "tator+http://127.0.0.1:8080/7?media_type=Images&attribute=Label"


@pytest.mark.parametrize(
    "same",
    [
        "TATOR+HTTPS://HOST:443/lab?type=Boxes&version=Baseline&attribute=Label",
        "tator+https://host/lab/?version=Baseline&type=Boxes&chunk=7&pause=1&in_place=0&timeout=3&verified=verified",
        "tator+https://host/l%61b?VERSION=Baseline&type=Boxes",
    ],
)
def test_the_same_labels_have_the_same_name(same: str) -> None:
    assert read_uri(same).name == read_uri(USUAL).name == f"{USUAL}&attribute=Label"


def test_other_labels_have_another_name() -> None:
    uris = [
        USUAL,
        USUAL.replace("lab?", "Lab?"),
        USUAL.replace("host", "host:8443"),
        USUAL.replace("https", "http"),
        USUAL.replace("Baseline", "Second"),
        USUAL.replace("Boxes", "Dots"),
        f"{USUAL}&attribute=cluster",
        "tator+https://host/lab?media_type=Boxes",
    ]
    assert len({read_uri(uri).name for uri in uris}) == len(uris)


def test_a_name_stands_for_the_address() -> None:
    for uri in (USUAL, USUAL.replace("https://host", "http://other:8080")):
        assert read_uri(f"{uri}&name=the+lab/tator").name == (
            "the lab/tator/lab?version=Baseline&type=Boxes&attribute=Label"
        )


def test_a_name_does_not_stand_for_the_labels() -> None:
    uris = [
        USUAL,
        USUAL.replace("Baseline", "Second"),
        USUAL.replace("Boxes", "Dots"),
        USUAL.replace("lab?", "Lab?"),
        USUAL.replace("lab?", "a%2Flab?").replace("&type", "&name=x&type"),
        USUAL.replace("&type", "&name=x/a&type"),
        f"{USUAL}&attribute=cluster",
        "tator+https://host/lab?media_type=Boxes",
        "tator+https://host/lab?media_type=Dots",
    ]
    names = {read_uri(uri if "&name=" in uri else f"{uri}&name=plankton").name for uri in uris}
    assert len(names) == len(uris)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("tator+https:///lab?version=a&type=b", "no host"),
        ("tator+https://ana:hunter2@host/lab?version=a&type=b", "no user in it"),
        ("tator+https://ho st/lab?version=a&type=b", "no host"),
        ("tator+https://host:port/lab?version=a&type=b", "no host"),
        ("tator+https://host?version=a&type=b", "no project"),
        ("tator+https://host/?version=a&type=b", "no project"),
        ("tator+https://host/7/annotation?version=a&type=b", "no project"),
        ("tator+https://host/lab", "lacks the key `version`"),
        ("tator+https://host/lab?type=b", "lacks the key `version`"),
        ("tator+https://host/lab?version=a", "lacks the key `type`"),
        ("tator+https://host/lab?version=&type=b", "`version`"),
        ("tator+https://host/lab?version=a&type=b&media_type=c", "both `media_type` and `version`"),
        ("tator+https://host/lab?media_type=c&in_place=0", "no marks of whole images"),
        (f"{USUAL}#{SECRET}", "`#`.*%23"),
        ("tator+https://host/lab#2?version=a&type=b", "`#`.*%23"),
        (f"{USUAL}&versoin=1", "a key `versoin` that is not known; did you mean `version`"),
        (f"{USUAL}&token={SECRET}", "a key `token` that is not known"),
        (f"{USUAL}&{SECRET}", "key=value pairs"),
        (f"{USUAL}&type=Boxes", "the key `type` twice"),
        (f"{USUAL}&attribute=%24id", "`attribute`"),
        (f"{USUAL}&attribute=a%0Ab", "`attribute`"),
        (f"{USUAL}&verified=Label", "of their own"),
        (f"{USUAL}&in_place=2", "`in_place` .* 0 or 1"),
        (f"{USUAL}&in_place=false", "`in_place` .* 0 or 1"),
        (f"{USUAL}&chunk=0", "`chunk` .* from 1 to 2,000"),
        (f"{USUAL}&chunk=2001", "`chunk`"),
        (f"{USUAL}&chunk=1.5", "`chunk`"),
        (f"{USUAL}&pause=-1", "`pause`"),
        (f"{USUAL}&pause=1e9", "`pause`"),
        (f"{USUAL}&timeout=0", "`timeout`"),
        (f"{USUAL}&timeout=\u0667", "`timeout`"),
        (f"{USUAL}&name=a%3Fb", "`name`"),
    ],
)
def test_what_is_wrong_is_said_and_no_value_repeated(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_store(uri, SECRET)
    shown = "".join(traceback.format_exception(caught.value)[1:])
    assert not [secret for secret in (SECRET, "hunter2") if secret in str(caught.value)]
    assert "hunter2" not in shown


@pytest.mark.parametrize("token", [None, "", " ", "two words", "t\u00f6ken", "a\nb"])
def test_a_token_that_cannot_be_one_is_said_and_not_repeated(token: str | None) -> None:
    with pytest.raises(InputError, match="MBARI_LABEL_STORE_TOKEN") as caught:
        open_store(USUAL, token)
    assert "two" not in str(caught.value)


def test_nothing_shows_the_token() -> None:
    store = open_store(USUAL, SECRET)
    assert SECRET not in f"{store!r}{store.name}{vars(store)!r}"
    store.close()
