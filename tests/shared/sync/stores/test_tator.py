"""Tator as a label store: the conformance suite on a stand-in server that behaves as a real one was recorded to."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar
from urllib.parse import quote

import pytest

from shared.errors import StorageError
from shared.sync.stores import open_store, tator_api
from shared.sync.stores.base import Change, Found, SourceId, Stamp, Store, Written
from tests.shared.sync.stores.conformance import STAMP, Conformance, Harness
from tests.shared.sync.stores.tators import Troubled, opened, uri
from tests.tator.api import Answer


def named(name: SourceId) -> str:
    """The UUID that stands for a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(name)))


class Named:
    """A store in which each record has the UUID of a name; nothing else is done here."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name, self.chunk = store.name, store.chunk
        self.check, self.refuses, self.close = store.check, store.refuses, store.close

    def __repr__(self) -> str:
        return repr(self._store)

    def read(self, ids: Sequence[SourceId], run: str | None = None) -> dict[SourceId, Found]:
        found = self._store.read([named(source) for source in ids], run)
        return {source: found[named(source)] for source in ids if named(source) in found}

    def write(self, changes: Sequence[Change], stamp: Stamp) -> Written:
        written = self._store.write([change._replace(id=named(change.id)) for change in changes], stamp)
        names = {named(change.id): change.id for change in changes}
        refused = {names[source]: why for source, why in written.refused.items()}
        return Written(written.done, refused, written.rows, frozenset(names[source] for source in written.taken))


class TatorHarness:
    """A server of its own with one project.

    Records that share an id are two rows of the same mark: what two writers leave that add a mark at one moment.
    """

    others: ClassVar = [42, 2.5]  # an attribute for text takes numbers; lists and nulls it refuses
    patience = 10.0

    def __init__(self, tator: Troubled, more: str = "timeout=1.5") -> None:
        tator.project()
        self.tator = tator
        self.secrets = (tator.token(),)
        self.store = Named(open_store(uri(tator, more=more), tator.token()))

    def put(self, records: Iterable[tuple[SourceId, Any]]) -> None:
        self.tator.put([(named(source), label) for source, label in records])

    def peek(self, source: SourceId) -> list[Any]:
        return self.tator.labels(named(source))

    def times(self, source: SourceId) -> int | None:
        return self.tator.times(named(source))

    def forbid(self, label: str) -> None:
        self.tator.forbid(label)

    @contextmanager
    def answer_lost(self) -> Iterator[None]:
        self.tator.losing = True
        yield
        assert not self.tator.losing

    def request_lost(self) -> AbstractContextManager[None]:
        return self.tator.request_lost()

    def down(self) -> AbstractContextManager[None]:
        return self.tator.down()

    def slow(self) -> AbstractContextManager[None]:
        return self.tator.hanging()

    def read_only(self) -> AbstractContextManager[None]:
        return self.tator.right("syncbot", "View Only")

    def locked_out(self) -> AbstractContextManager[None]:
        return self.tator.locked_out()


class TestTator(Conformance):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        with Troubled() as tator:
            made = TatorHarness(tator)
            yield made
            made.store.close()


# --- names, ids and itself ---


A, B, C = (named(name) for name in "abc")


def change(source: SourceId = A, expected: str = "Calanus", wanted: str = "Oithona") -> Change:
    return Change(source, expected, wanted)


def test_names_become_ids_once_and_ids_do_as_well(tator: Troubled) -> None:
    tator.put([(A, "Calanus")])
    with opened(tator) as store:
        for _ in range(3):
            store.read([A])
        store.write([change()], STAMP)
    assert tator.count("GET") == 3  # projects, versions, types
    with opened(tator, "version=31&type=21", project="7") as store:
        assert store.read([A]) == {A: Found("Oithona")}
    assert tator.count("GET", "Project/7") == 1


def test_a_number_that_is_a_name_is_the_name(tator: Troubled) -> None:
    tator.version(7, 44, "32")
    tator.put([(A, "of the version with this name")], version=44)
    tator.put([(A, "of the version with this id")], version=32)
    with opened(tator, "version=32&type=Boxes") as store:
        assert store.read([A]) == {A: Found("of the version with this name")}


def test_of_two_versions_of_one_name_an_id_tells(tator: Troubled) -> None:
    tator.version(7, 44, "Baseline")
    with (
        opened(tator) as store,
        pytest.raises(StorageError, match=r"several.*'Baseline' as version: use an id, 31, 44"),
    ):
        store.read([A])


@pytest.mark.parametrize(("project", "message"), [("8", "no project '8'; there is 'Plank"), ("Planktvore", "did you")])
def test_a_wrong_project_is_said_with_those_that_there_are(tator: Troubled, project: str, message: str) -> None:
    with opened(tator, project=project) as store, pytest.raises(StorageError, match=message):
        store.check()


def test_two_spellings_of_an_id_are_one_record(tator: Troubled) -> None:
    tator.put([(A, "Calanus"), (B, "Calanus")])
    other, bare = A.upper(), B.replace("-", "")
    with opened(tator) as store:
        assert store.read([A, other, bare]) == {
            A: Found("Calanus", copies=2),
            other: Found("Calanus", copies=2),
            bare: Found("Calanus"),
        }
        # Which of the two is meant nobody knows; the third is written under the one spelling that the server has.
        assert store.write([change(A), change(other, wanted="Acartia"), change(bare)], STAMP) == Written(1)
    assert (tator.labels(A), tator.labels(B)) == (["Calanus"], ["Oithona"])


def test_no_label_is_an_empty_one_or_a_null_or_none(tator: Troubled) -> None:
    tator.put([(A, ""), (B, None)])
    tator.put([(C, None)], attributes={"Label": None})
    with opened(tator) as store:
        assert store.read([A, B, C]) == dict.fromkeys((A, B, C), Found(""))
        assert store.write([change(each, "") for each in (A, B, C)], STAMP) == Written(3)
        assert store.write([change(each, "", "Acartia") for each in (A, B, C)], STAMP) == Written(0)
    assert [tator.labels(each) for each in (A, B, C)] == [["Oithona"]] * 3


def test_an_attribute_whose_name_means_something_in_a_query_is_written_singly(tator: Troubled) -> None:
    name = "Label, new::50%"
    tator.data.projects[7].kinds[21].attribute_types.append({"name": name, "dtype": "string"})
    tator.put([(A, "Calanus"), (B, None), (C, "Acartia")], attribute=name)
    with opened(tator, f"version=Baseline&type=Boxes&attribute={quote(name)}") as store:
        assert store.write([change(A), change(B, ""), change(C)], STAMP) == Written(2)
    assert [tator.labels(each, attribute=name) for each in (A, B, C)] == [["Oithona"], ["Oithona"], ["Acartia"]]
    assert tator.count("PATCH", "Localizations") == 0


def test_labels_too_long_are_refused_one_by_one(tator: Troubled) -> None:
    tator.put([(A, "Calanus"), (B, "Calanus")])
    with opened(tator) as store:
        assert store.refuses("x" * 8_000) is None
        long = store.write([change(A, wanted="x" * 8_001), change(B, wanted="x" * 8_000)], STAMP)
    assert (long.done, list(long.refused)) == (1, [A])
    assert "8,000" in long.refused[A]


def test_more_than_a_chunk_is_a_mistake(tator: Troubled) -> None:
    with opened(tator, more="chunk=2") as store, pytest.raises(ValueError, match="at most 2"):
        store.write([change(named(str(n))) for n in range(3)], STAMP)


def test_writes_keep_a_distance_and_reads_do_not(tator: Troubled, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(tator_api, "sleep", slept.append)
    tator.put([(A, "Calanus"), (B, "Calanus")])
    with opened(tator, more="pause=30") as store:
        store.read([A])
        assert not any(slept)
        assert store.write([change(A), change(B, wanted="Acartia")], STAMP) == Written(2)
        assert [29 < seconds <= 30 for seconds in slept] == [False, True]


def test_the_server_is_asked_as_seldom_as_can_be(tator: Troubled) -> None:
    pairs = [("Calanus", "Oithona"), ("Calanus", "Acartia"), ("Salpa", "Oithona")]
    changes = [change(named(str(n)), *pairs[n % 3]) for n in range(500)]
    tator.put([(each.id, each.expected) for each in changes])
    with opened(tator) as store:
        assert store.write(changes, STAMP) == Written(500)
    assert (tator.count("PATCH"), tator.count("PUT")) == (3, 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(404, "<html>Not Found</html>"), "no Tator server.*404"),
        (Answer(301, ""), "no Tator server.*301"),
        (Answer(200, "<html>Hello</html>"), "cut"),
        (Answer(200, "{}"), "Projects with something else"),
    ],
)
def test_what_is_no_tator_is_said(tator: Troubled, answer: Answer, message: str) -> None:
    tator.instead = lambda request, _: answer
    with opened(tator) as store, pytest.raises(StorageError, match=message):
        store.check()


def test_the_check_shows_what_the_names_mean_and_who_may_write(tator: Troubled) -> None:
    tator.put([(A, "Calanus"), (B, None)])
    tator.put([(C, "Calanus")], version=32)
    with opened(tator) as store:
        assert store.check() == (
            f"{store.name}: project 'Planktivore lab' (7), version 'Baseline' (31), type 'Boxes' (21), attribute "
            "'Label' of 'Label', 'score', 'cluster', 'verified', 'predicted_label', 'note'; 2 localizations; of the "
            "first 2, 1 have a label; the token may write (permission 'Can Edit')"
        )
        tator.api.fine_grain = True
        assert store.check().endswith("the token may write (permissions by row)")
    assert tator.count("PATCH") == 0


# --- labels of whole images: only their list is recorded, all else is taken from localizations ---

IMAGES = "media_type=Images"


def test_labels_of_whole_images(tator: Troubled) -> None:
    tator.put_media([(A, "Calanus"), (B, "Acartia"), (C, None)])
    with opened(tator, IMAGES) as store:
        assert store.read([A, B, C, named("d")]) == {A: Found("Calanus"), B: Found("Acartia"), C: Found("")}
        assert store.write([change(A), change(B), change(C, ""), change(named("d"))], STAMP) == Written(2)
        assert store.read([A, B, C]) == {A: Found("Oithona"), B: Found("Acartia"), C: Found("Oithona")}
        assert "media type 'Images' (11)" in store.check()
        assert store.refuses("Calanus finmarchicus") is None
        assert store.refuses("it's")
        assert store.refuses("50%%")
    for path, query, body in tator.bodies("PATCH"):
        assert path == "Medias/7"
        assert query.keys() >= {"type", "count"}
        assert A in str(body["object_search"]) or C in str(body["object_search"])
    assert tator.labels(A) == []


@pytest.mark.parametrize("held", ["O'Brien", "50% sure", "x" * 5_001])
def test_an_image_loses_a_label_that_it_could_not_be_given(tator: Troubled, held: str) -> None:
    tator.put_media([(A, held), (B, "Calanus")])
    with opened(tator, IMAGES) as store:
        assert store.write([change(A, held), change(B, held)], STAMP) == Written(1)
    assert (tator.media_labels(A), tator.media_labels(B)) == (["Oithona"], ["Calanus"])


def test_a_label_that_is_too_long_for_an_image_is_refused_as_that(tator: Troubled) -> None:
    with opened(tator, IMAGES) as store:
        assert store.refuses("x" * 5_000) is None
        assert store.refuses("x" * 5_001) == (
            "it is longer than 5,000 characters, the longest label of a whole image that Tator takes"
        )
        assert "apostrophe" in str(store.refuses("it's"))


def test_a_longer_label_than_can_be_written_is_replaced(tator: Troubled) -> None:
    held = "x" * 8_100
    tator.put([(A, held), (B, held)])
    with opened(tator) as store:
        assert store.write([change(A, held), change(B, held, "it's")], STAMP) == Written(2)
        refused = store.write([change(A, "half \ud83e"), change(B, "\0")], STAMP)
        assert (refused.done, set(refused.refused)) == (0, {A, B})
    assert (tator.labels(A), tator.labels(B)) == (["Oithona"], ["it's"])


def test_an_image_that_changed_meanwhile_is_left_alone(tator: Troubled) -> None:
    tator.put_media([(A, "Calanus"), (B, "Calanus")])
    with opened(tator, IMAGES) as store, tator.right("syncbot", "View Only"), pytest.raises(StorageError, match="may"):
        store.write([change(A)], STAMP)
    with opened(tator, IMAGES) as store:
        assert store.write([change(A, "Acartia"), change(B)], STAMP) == Written(1)
    assert (tator.media_labels(A), tator.media_labels(B)) == (["Calanus"], ["Oithona"])
