"""What every label store must do, as tests.

A store's test file has a class of its own that inherits from `Conformance` and gives the fixture `harness`: a real
server with a fresh set of records, and ways to look and to make trouble behind the store's back.

    class TestMyStore(Conformance):
        @pytest.fixture
        def harness(self) -> Iterator[Harness]: ...
"""

import contextlib
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from shared.errors import StorageError
from shared.sync.stores.base import Change, Found, SourceId, Stamp, Store, Unreachable, Written

STAMP = Stamp(run="65a0c0ffee0123456789abcd", by="ana", at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
OTHER_RUN = "65a0c0ffee0123456789abce"

NFC, NFD = (unicodedata.normalize(form, "Cératium") for form in ("NFC", "NFD"))
LABELS = [
    "Pseudo-nitzschia",
    "Detonula_Cerataulina_Lauderia",
    "it's",
    '"quoted"',
    "50% of it",
    "%s %d %(x)s %%",
    "a\tb",
    "line\nbreak\r\n",
    "a, b; c",
    "$label",
    "$$NOW",
    "a.b.c",
    '{"$ne": null}',
    '{"$gt": ""}',
    "/.*/",
    "back\\slash",
    " spaces around ",
    "'; DROP TABLE labels; --",
    "=1+1",
    "<b>&amp;</b>",
    NFC,
    NFD,
    "İstanbul ß ﬁ",
    "\u200b\u202eabc",
    "浮游生物 🦐👩\u200d🔬",
    "null",
    "x" * 2_000,
]
IDS: list[SourceId] = [
    "5f1e-a",
    "it's",
    '{"$ne": null}',
    "$elemental_id",
    "50%,\t;",
    "../..",
    "a b",
    "*",
    NFC,
    NFD,
    "🦐",
    "i" * 500,
    "007",
    "7",
]


class Harness(Protocol):
    """A store on a real server with fresh records of its own.

    Attributes:
        store: the store under test
        secrets: texts that nobody may ever see
        others: values that are no text and that a record can hold instead of a label; empty if there are none
        patience: seconds after which the store must have given up, generously
    """

    store: Store
    secrets: Sequence[str]
    others: Sequence[Any]
    patience: float

    def put(self, records: Iterable[tuple[SourceId, Any]]) -> None:
        """Adds records (id, label), behind the store's back; None is no label. An id may come again."""
        ...

    def peek(self, source: SourceId) -> list[Any]:
        """The labels of all records with this id as they are on the server."""
        ...

    def times(self, source: SourceId) -> int | None:
        """How often the record was written through the store; None if the server cannot tell."""
        ...

    def forbid(self, label: str) -> None:
        """From now on a rule of the server's own refuses this label."""
        ...

    def answer_lost(self) -> AbstractContextManager[None]:
        """The first write inside is made by the server; its answer does not arrive."""
        ...

    def request_lost(self) -> AbstractContextManager[None]:
        """The first write inside does not reach the server."""
        ...

    def down(self) -> AbstractContextManager[None]:
        """The server cannot be reached."""
        ...

    def slow(self) -> AbstractContextManager[None]:
        """The server answers later than anyone waits."""
        ...

    def read_only(self) -> AbstractContextManager[None]:
        """The user loses the right to write, not to read."""
        ...

    def locked_out(self) -> AbstractContextManager[None]:
        """The user's account is gone, also for connections that there are."""
        ...


def raised(harness: Harness, kind: type[Exception], call: Callable[[], object]) -> str:
    """The message of the error that the call must raise; exactly of this kind, and with no secret anywhere."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not [secret for secret in harness.secrets if secret in shown]
    assert harness.store.name in str(caught.value)
    return str(caught.value)


class Conformance:
    """The tests; see the module."""

    # --- reading ---

    def test_reads_what_is_there_and_leaves_out_the_rest(self, harness: Harness) -> None:
        harness.put([("a", "Calanus"), ("b", "Oithona"), ("c", None)])
        found = harness.store.read(["b", "nowhere", "a", "a", "c"])
        assert found == {"a": Found("Calanus"), "b": Found("Oithona"), "c": Found("")}

    def test_reads_nothing_when_asked_for_nothing(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        assert harness.store.read([]) == {}

    def test_reads_twenty_thousand(self, harness: Harness) -> None:
        harness.put([(f"roi-{i:05}", f"class {i % 40}") for i in range(0, 20_000, 2)])
        found = harness.store.read([f"roi-{i:05}" for i in range(20_000)])
        assert found == {f"roi-{i:05}": Found(f"class {i % 40}") for i in range(0, 20_000, 2)}

    def test_counts_records_that_share_an_id(self, harness: Harness) -> None:
        harness.put([("a", "Calanus"), ("a", "Oithona"), ("a", "Calanus"), ("b", "Calanus")])
        found = harness.store.read(["a", "b"])
        assert (found["a"].copies, found["b"].copies) == (3, 1)

    def test_shows_values_that_are_no_text_and_never_overwrites_them(self, harness: Harness) -> None:
        if not harness.others:
            pytest.skip("its labels are always text")
        for number, value in enumerate(harness.others):
            harness.put([(f"id {number}", value)])
            found = harness.store.read([f"id {number}"])[f"id {number}"]
            assert found.label is None
            assert found.other
            guesses = [str(value), found.other, "", "null"]
            for guess in guesses:
                assert harness.store.write([Change(f"id {number}", guess, "Calanus")], STAMP).done == 0
            assert harness.peek(f"id {number}") == [value]

    # --- writing ---

    def test_writes_only_where_the_label_is_the_expected_one(self, harness: Harness) -> None:
        harness.put([("a", "Calanus"), ("b", "Oithona"), ("c", None), ("d", "Calanus"), ("e", "Calanus")])
        changes = [
            Change("b", "Calanus", "Acartia"),  # first, so that it would hold the others if the order counted
            Change("nowhere", "Calanus", "Acartia"),
            Change("c", "Calanus", "Acartia"),
            Change("a", "Calanus", "Acartia"),
            Change("d", "calanus", "Acartia"),
            Change("e", "Calanus", "Oithona"),
        ]
        assert harness.store.write(changes, STAMP) == Written(2)
        there = {source: harness.peek(source) for source in ("a", "b", "c", "d", "e", "nowhere")}
        assert there == {
            "a": ["Acartia"],
            "b": ["Oithona"],
            "c": [None],
            "d": ["Calanus"],
            "e": ["Oithona"],
            "nowhere": [],
        }

    def test_a_record_without_a_label_gets_one_and_loses_it(self, harness: Harness) -> None:
        harness.put([("a", None), ("b", "Calanus")])
        changes = [Change("a", "", "Oithona"), Change("b", "", "Oithona")]
        assert harness.store.write(changes, STAMP) == Written(1)
        assert [harness.peek(source) for source in "ab"] == [["Oithona"], ["Calanus"]]
        assert harness.store.write([Change("a", "Oithona", ""), Change("b", "Oithona", "")], STAMP) == Written(1)
        assert [harness.peek(source) for source in "ab"] in ([[None], ["Calanus"]], [[""], ["Calanus"]])
        assert harness.store.read(["a"]) == {"a": Found("")}

    def test_writes_nothing_when_given_nothing(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        assert harness.store.write([], STAMP) == Written(0)
        assert harness.peek("a") == ["Calanus"]

    def test_takes_a_whole_chunk(self, harness: Harness) -> None:
        count = harness.store.chunk
        harness.put([(f"roi-{i}", "Calanus") for i in range(count + 1)])
        changes = [Change(f"roi-{i}", "Calanus", f"class {i % 7}") for i in range(count)]
        assert harness.store.write(changes, STAMP) == Written(count)
        found = harness.store.read([f"roi-{i}" for i in range(count + 1)])
        assert [found[f"roi-{i}"].label for i in range(count)] == [f"class {i % 7}" for i in range(count)]
        assert found[f"roi-{count}"].label == "Calanus"

    def test_a_second_write_of_the_same_changes_nothing(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        change = Change("a", "Calanus", "Oithona")
        assert [harness.store.write([change], STAMP).done for _ in range(2)] == [1, 0]
        assert harness.times("a") in (1, None)

    def test_a_refused_row_does_not_hold_the_others(self, harness: Harness) -> None:
        harness.put([(name, "Calanus") for name in "abc"])
        harness.forbid("Forbidden")
        wanted = {"a": "Oithona", "b": "Forbidden", "c": "Acartia"}
        written = harness.store.write([Change(name, "Calanus", label) for name, label in wanted.items()], STAMP)
        assert written.done == 2
        assert list(written.refused) == ["b"]
        assert written.refused["b"]
        assert [harness.peek(name) for name in "abc"] == [["Oithona"], ["Calanus"], ["Acartia"]]

    def test_knows_what_a_run_has_written(self, harness: Harness) -> None:
        harness.put([("a", "Calanus"), ("b", "Calanus")])
        harness.store.write([Change("a", "Calanus", "Oithona")], STAMP)
        assert {found.ours for found in harness.store.read(["a", "b"]).values()} == {None}
        ours = [
            harness.store.read(["a", "b"], run=run)[source].ours for run in (STAMP.run, OTHER_RUN) for source in "ab"
        ]
        assert ours in ([True, False, False, False], [None] * 4)

    # --- labels and ids that are hard to carry ---

    @pytest.mark.parametrize("label", LABELS, ids=ascii)
    def test_carries_any_label_unchanged(self, harness: Harness, label: str) -> None:
        if harness.store.refuses(label):
            pytest.skip(f"it says that it cannot: {harness.store.refuses(label)}")
        harness.put([("a", label), ("b", "Calanus"), ("c", "Calanus")])
        assert harness.store.read(["a"])["a"].label == label
        assert harness.store.write([Change("b", "Calanus", label), Change("c", label, "Oithona")], STAMP).done == 1
        assert [harness.peek(source) for source in "abc"] == [[label], [label], ["Calanus"]]
        assert harness.store.write([Change("b", label, "Oithona")], STAMP).done == 1
        assert harness.peek("b") == ["Oithona"]

    def test_takes_no_label_for_another_that_looks_the_same(self, harness: Harness) -> None:
        harness.put([("nfc", NFC), ("nfd", NFD), ("case", "Calanus"), ("space", "Calanus ")])
        wrong = {"nfc": NFD, "nfd": NFC, "case": "CALANUS", "space": "Calanus"}
        assert harness.store.write([Change(source, label, "x") for source, label in wrong.items()], STAMP).done == 0
        assert [harness.peek(source) for source in wrong] == [[NFC], [NFD], ["Calanus"], ["Calanus "]]

    def test_carries_any_id_unchanged(self, harness: Harness) -> None:
        harness.put([(source, f"label {number}") for number, source in enumerate(IDS)])
        expected = {source: Found(f"label {number}") for number, source in enumerate(IDS)}
        assert harness.store.read(IDS) == expected
        for number, source in enumerate(IDS):
            assert harness.store.write([Change(source, f"label {number}", "new")], STAMP).done == 1
            assert harness.peek(source) == ["new"]
            left = [harness.peek(other) for other in IDS[number + 1 :]]
            assert left == [[f"label {other}"] for other in range(number + 1, len(IDS))]

    def test_refuses_what_is_no_text(self, harness: Harness) -> None:
        assert harness.store.refuses("Calanus") is None
        assert harness.store.refuses("half \ud83e")

    # --- trouble ---

    def test_a_lost_answer_is_unreachable_and_the_write_is_made_once(self, harness: Harness) -> None:
        harness.put([("a", "Calanus"), ("b", "Oithona")])
        changes = [Change("a", "Calanus", "Acartia"), Change("b", "Calanus", "Acartia")]
        with harness.answer_lost():
            raised(harness, Unreachable, lambda: harness.store.write(changes, STAMP))
        assert [harness.peek(source) for source in "ab"] == [["Acartia"], ["Oithona"]]
        assert harness.times("a") in (1, None)
        found = harness.store.read(["a", "b"], run=STAMP.run)
        assert (found["a"].label, found["b"].label) == ("Acartia", "Oithona")
        assert found["a"].ours in (True, None)

    def test_a_lost_request_is_unreachable_and_nothing_is_written(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        change = Change("a", "Calanus", "Acartia")
        with harness.request_lost():
            raised(harness, Unreachable, lambda: harness.store.write([change], STAMP))
        assert harness.peek("a") == ["Calanus"]
        assert harness.store.write([change], STAMP).done == 1

    def test_a_server_that_is_down_is_unreachable_and_found_again(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        change = Change("a", "Calanus", "Oithona")
        with harness.down():
            began = time.monotonic()
            raised(harness, Unreachable, lambda: harness.store.read(["a"]))
            raised(harness, Unreachable, lambda: harness.store.write([change], STAMP))
            raised(harness, Unreachable, harness.store.check)
            assert time.monotonic() - began < 3 * harness.patience
        assert harness.store.read(["a"])["a"].label == "Calanus"
        assert harness.store.write([change], STAMP).done == 1

    def test_a_slow_server_is_unreachable_before_long(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        harness.store.read(["a"])
        calls = [
            lambda: harness.store.read(["a"]),
            lambda: harness.store.write([Change("a", "Calanus", "Oithona")], STAMP),
        ]
        for call in calls:
            with harness.slow():
                began = time.monotonic()
                raised(harness, Unreachable, call)
                assert time.monotonic() - began < harness.patience
        assert harness.peek("a") in (["Calanus"], ["Oithona"])
        assert harness.times("a") in (0, 1, None)

    def test_the_right_to_write_lost_between_two_writes(self, harness: Harness) -> None:
        harness.put([("a", "Calanus"), ("b", "Calanus")])
        assert harness.store.write([Change("a", "Calanus", "Oithona")], STAMP).done == 1
        change = Change("b", "Calanus", "Oithona")
        with harness.read_only():
            raised(harness, StorageError, lambda: harness.store.write([change], STAMP))
            raised(harness, StorageError, harness.store.check)
            assert harness.store.read(["b"])["b"].label == "Calanus"
        assert harness.store.write([change], STAMP).done == 1

    def test_an_account_that_goes_away(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        harness.store.read(["a"])
        with harness.locked_out():
            raised(harness, StorageError, lambda: harness.store.read(["a"]))
            raised(harness, StorageError, lambda: harness.store.write([Change("a", "Calanus", "Oithona")], STAMP))
            raised(harness, StorageError, harness.store.check)
        assert harness.peek("a") == ["Calanus"]

    # --- itself ---

    def test_checks_itself_and_writes_nothing(self, harness: Harness) -> None:
        harness.put([("a", "Calanus")])
        line = harness.store.check()
        assert harness.store.name in line
        assert "\n" not in line
        assert harness.peek("a") == ["Calanus"]
        assert harness.times("a") in (0, None)

    def test_shows_no_secret(self, harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(0)
        harness.put([("a", "Calanus")])
        shown = [harness.store.name, repr(harness.store), str(harness.store), harness.store.check()]
        harness.store.write([Change("a", "Calanus", "Oithona")], STAMP)
        with harness.answer_lost(), contextlib.suppress(Unreachable):
            harness.store.write([Change("a", "Oithona", "Calanus")], STAMP)
        shown.append(caplog.text)
        assert not [secret for secret in harness.secrets for text in shown if secret in text]

    def test_can_be_closed_twice(self, harness: Harness) -> None:
        harness.store.close()
        harness.store.close()
