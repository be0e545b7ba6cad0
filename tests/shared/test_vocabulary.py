import os
import stat
import subprocess
import sys
import threading
import unicodedata
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InputError, StorageError
from shared.vocabulary import Vocabulary, add, fold, load, parse
from tests.conftest import ROOT, aws, let_others_in

NAMES = ("Calanus", "Pseudo-nitzschia", "fecal_pellet", "Oithona", "Detonula_Cerataulina_Lauderia", "Salp", "Egg")
PLANKTON = Vocabulary(NAMES, "the test")
# What a label may look like and must stay.
ODD = ['{"$ne": null}', "$label", 'it\'s 100%, "sure"', "tab\there", "=SUM(A1)", "C# 1", "浮游", "a: b", "*x", "- y"]
NFC, NFD = (unicodedata.normalize(form, "Nodulária") for form in ("NFC", "NFD"))


# --- nearly a name ---


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Calanu", "Calanus"),
        ("calanus", "Calanus"),
        ("CALANUS ", "Calanus"),
        ("Calnaus", "Calanus"),  # swapped
        ("Calamus", "Calanus"),
        ("pseudo nitzschia", "Pseudo-nitzschia"),
        ("Pseudonitschia", "Pseudo-nitzschia"),
        ("Pseudo\u2011nitzschia", "Pseudo-nitzschia"),  # a hyphen that does not break
        ("fecal/pellet", "fecal_pellet"),
        ("Faecal pellet", "fecal_pellet"),
        ("\uff2fithona", "Oithona"),
        ("Oit\u200bhona", "Oithona"),  # with a space that nobody sees
        ("Salps", "Salp"),
        ("egg", "Egg"),
    ],
)
def test_a_text_that_is_nearly_a_name_finds_it(text, meant):
    assert text not in PLANKTON
    assert PLANKTON.nearest(text) == [meant]


@pytest.mark.parametrize(
    "text",
    ["train", "val", "test", "reviewed", "unreadable", "needs-sync", "Eggs", "Slp", "cruise 2023", "Calls", "", "-_"],
)
def test_what_people_tag_otherwise_is_near_to_no_name(text):
    assert PLANKTON.nearest(text) == []


def test_the_nearest_comes_first_and_there_are_few():
    vocabulary = Vocabulary(("Calanoids", "calanus", "Calanus", "Calanida", "Calanoida"), "the test")
    assert vocabulary.nearest("CALANUS") == ["calanus", "Calanus"]
    assert vocabulary.nearest("Calanoid") == ["Calanoids", "Calanoida", "Calanida"]
    assert vocabulary.nearest("Calanoid", n=1) == ["Calanoids"]


def test_both_forms_of_a_character_are_two_texts_and_each_is_near_to_the_other():
    assert NFC != NFD
    vocabulary = Vocabulary((NFC,), "the test")
    assert NFC in vocabulary
    assert NFD not in vocabulary
    assert vocabulary.nearest(NFD) == [NFC]


def edits_by_table(one: str, other: str) -> int:
    """Optimal string alignment distance, by the textbook's table."""
    table = [[i + j if not i * j else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            replaced = table[i - 1][j - 1] + (one[i - 1] != other[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, replaced)
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


def near_by_table(text: str, names: tuple[str, ...]) -> list[str]:
    found = []
    for place, name in enumerate(names):
        one, other = fold(text), fold(name)
        shorter = min(len(one), len(other))
        edits = edits_by_table(one, other)
        if shorter and edits <= (2 if shorter >= 8 else 1 if shorter >= 4 else 0):
            found.append((edits, place))
    return [names[place] for _, place in sorted(found)]


few_letters = st.text("abA-", min_size=1, max_size=14)


@settings(deadline=None)
@given(st.lists(few_letters, unique=True, max_size=30), few_letters)
def test_the_quick_search_finds_what_comparing_with_every_name_finds(names, text):
    assert Vocabulary(tuple(names), "").nearest(text, n=len(names)) == near_by_table(text, tuple(names))


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_two_slips_in_a_long_name_are_forgiven(name, data):
    text = name
    for _ in range(2 if len(fold(name)) >= 10 else 0):
        place = data.draw(st.integers(0, len(text) - 1))
        text = text[:place] + data.draw(st.sampled_from(["", "q", "qq"])) + text[place + 1 :]
    assert (name in PLANKTON.nearest(text)) == (edits_by_table(fold(text), fold(name)) <= 2)


# --- files ---


def test_plain_text_has_one_name_a_line():
    text = "\ufeff# of 2024\r\n\r\n Calanus\r\nC# 1\n  # not this\nfecal pellet  \n#nor this\nlast"
    assert parse(text, "names.txt") == ["Calanus", "C# 1", "fecal pellet", "last"]


def test_a_line_ends_only_at_its_end():
    assert parse("a\u2028b\nc\x0bd\n", "names.txt") == ["a\u2028b", "c\x0bd"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("# ours\n- Calanus\n- 'No'\n", "names.txt"),
        ("---\n- Calanus\n- 'No'", "names"),
        ("[Calanus, 'No']", "s3://bucket/names.yml"),
        ('["Calanus", "No"]', "names.json"),
        ("\ufeff- Calanus\n- 'No'", "names.YAML"),
    ],
)
def test_a_yaml_list_is_one_too(text, where):
    assert parse(text, where) == ["Calanus", "No"]


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("", "names.txt", "names.txt is empty"),
        ("\n# nothing\n", "names.txt", "is empty"),
        ("", "names.yaml", "is empty"),
        ("[]", "names.yaml", "is empty"),
        ("a\nb\na\n", "names.txt", "has 'a' twice"),
        ("- a\n- a\n", "names.yaml", "has 'a' twice"),
        ("- a\n- No\n", "names.yaml", "has False, which is not text: put it in quotes"),
        ("- a\n- 1.5\n", "names.yaml", "has 1.5"),
        ("- a\n-\n", "names.yaml", "has None"),
        ("- a\n- ' '\n", "names.yaml", "an empty name"),
        ("- a\n- [b]\n", "names.yaml", "has ['b']"),
        ("names:\n- a\n", "names.yaml", "not a list"),
        ("- a\n- 'b\n", "names.yaml", "not the YAML list it looks like (line 3)"),
        ("- 2023-99-99", "names.yaml", "not the YAML list"),
        ("- !!python/object/apply:os.getcwd []\n", "names.yaml", "not the YAML list"),
        ("[" * 5000, "names.yaml", "not the YAML list"),
    ],
)
def test_a_file_that_is_no_list_of_names_is_refused_with_the_reason(text, where, said):
    with pytest.raises(InputError) as error:
        parse(text, where)
    assert said in str(error.value)
    assert where in str(error.value)


@dataclass
class Place:
    """Where a vocabulary may lie: a folder, or a bucket."""

    folder: str
    secrets: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, data: bytes) -> str:
        uri = f"{self.folder}/{name}"
        if self.secrets:
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            aws("s3", self.secrets).put_object(Bucket=bucket, Key=key, Body=data)
        else:
            Path(uri).write_bytes(data)
        return uri

    def read(self, uri: str) -> bytes:
        if self.secrets:
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            return aws("s3", self.secrets).get_object(Bucket=bucket, Key=key)["Body"].read()
        return Path(uri).read_bytes()


@pytest.fixture(params=["folder", "bucket", "folder in a bucket"])
def place(request, tmp_path) -> Place:
    if request.param == "folder":
        return Place(str(tmp_path))
    bucket = request.getfixturevalue("bucket")
    folder = f"s3://{bucket}" if request.param == "bucket" else f"s3://{bucket}/lab/names"
    return Place(folder, request.getfixturevalue("s3"))


def test_a_vocabulary_is_loaded_from_where_it_lies(place):
    uri = place.write("names.txt", "\n".join([*NAMES, NFC, NFD, *ODD[:9]]).encode())
    vocabulary = load(uri, place.secrets)
    assert vocabulary.names == (*NAMES, NFC, NFD, *ODD[:9])
    assert vocabulary.origin == uri
    assert len(vocabulary) == len(NAMES) + 11
    assert "Calanus" in vocabulary
    assert "calanus" not in vocabulary


def test_a_vocabulary_that_is_not_there_is_named(place):
    with pytest.raises(StorageError, match=r"names\.txt"):
        load(f"{place.folder}/names.txt", place.secrets)
    with pytest.raises(StorageError, match=r"names\.txt"):
        add(f"{place.folder}/names.txt", "Calanus", place.secrets)


def test_a_file_that_is_not_text_or_a_folder_is_refused(place, tmp_path):
    with pytest.raises(InputError, match="not text in UTF-8"):
        load(place.write("weights.pt", b"PK\x03\x04\xff\xfe"), place.secrets)
    with pytest.raises(InputError, match="is a folder"):
        load(str(tmp_path), {})


def test_a_file_far_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "movie"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(InputError, match="too large"):
        load(str(path), {})


@pytest.mark.parametrize(
    ("name", "before", "added"),
    [
        ("names.txt", "# ours\nCalanus\n\n# copepods\nOithona\n", "Salpa\n"),
        ("names.txt", "Calanus", "\nSalpa\n"),
        ("names.txt", "Calanus\r\nOithona", "\r\nSalpa\r\n"),
        ("names.txt", "\ufeffCalanus\n# the end\n", "Salpa\n"),
        ("names.yaml", "# ours\n- Calanus  # the big one\n- 'Oithona'\n", "- 'Salpa'\n"),
        ("names.yaml", "  - Calanus\n  - Oithona", "\n  - Salpa\n"),
        ("names.txt", "- Calanus\r\n- Oithona\r\n", "- Salpa\r\n"),
    ],
)
def test_a_name_is_added_at_the_end_and_the_rest_stays_byte_for_byte(place, name, before, added):
    uri = place.write(name, before.encode())
    names = load(uri, place.secrets).names
    add(uri, "Salpa", place.secrets)
    assert place.read(uri) == (before + added).encode()
    assert load(uri, place.secrets).names == (*names, "Salpa")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[Calanus, Oithona]  # ours\n", "[Calanus, Oithona, Salpa]  # ours\n"),
        ('[\n  "Calanus",\n]\n', '[\n  "Calanus", "Salpa",\n]\n'),
        ("- Calanus\n- Oithona # c\n# the end\n", "- Calanus\n- Oithona # c\n- Salpa\n# the end\n"),
        ("- Calanus\n- >-\n  Oit\n  hona\n", "- Calanus\n- >-\n  Oit\n  hona\n- Salpa\n"),
        ("- Calanus\n- |-\n  Oithona\n\n# the end\n", "- Calanus\n- |-\n  Oithona\n\n- Salpa\n# the end\n"),
        ("['Calanus' # the big one\n]", "['Calanus', 'Salpa' # the big one\n]"),
        ("---\n- Calanus\n...\n", "---\n- Calanus\n- Salpa\n...\n"),
    ],
)
def test_a_name_is_added_in_every_layout_of_yaml(tmp_path, before, after):
    path = tmp_path / "names.yaml"
    path.write_text(before)
    names = yaml.safe_load(before)
    add(str(path), "Salpa", {})
    assert yaml.safe_load(path.read_text()) == [*names, "Salpa"]
    assert path.read_text() == after


@pytest.mark.parametrize("file", ["names.txt", "names.yaml"])
@pytest.mark.parametrize("name", [*ODD, NFC, NFD, "No", "1.5", "null", "a" * 300])
def test_any_name_arrives_unchanged(tmp_path, file, name):
    path = tmp_path / file
    path.write_text("- Calanus\n" if file.endswith("yaml") else "Calanus\n")
    add(str(path), name, {})
    assert load(str(path), {}).names == ("Calanus", name)


@pytest.mark.parametrize("name", ["Calanus", "", "  ", " Salpa", "Salpa\n", "two\nlines", "# comment", "half \ud800"])
def test_a_name_that_is_there_or_cannot_be_written_is_refused_and_nothing_changes(place, name):
    uri = place.write("names.txt", b"# ours\nCalanus\n")
    with pytest.raises(InputError):
        add(uri, name, place.secrets)
    assert place.read(uri) == b"# ours\nCalanus\n"


def test_a_damaged_file_is_not_added_to(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("a\na\n")
    with pytest.raises(InputError, match="twice"):
        add(str(path), "b", {})
    assert path.read_text() == "a\na\n"


def test_who_may_use_the_file_and_where_a_link_leads_stays(tmp_path):
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "names.txt", tmp_path / "names.txt"
    path.write_text("Calanus\n")
    path.chmod(0o664)
    link.symlink_to(path)
    add(str(link), "Salpa", {})
    assert link.is_symlink()
    assert path.read_text() == "Calanus\nSalpa\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_sees_the_file_before_or_after(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Calanus\n")
    with path.open() as reader:  # has the old file, whole, for as long as it likes
        add(str(path), "Salpa", {})
        assert reader.read() == "Calanus\n"
    assert path.read_text() == "Calanus\nSalpa\n"


def test_names_added_at_the_same_time_all_arrive(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Calanus\n")
    names = [uuid.uuid4().hex for _ in range(12)]
    threads = [threading.Thread(target=add, args=(str(path), name, {})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load(str(path), {}).names) == sorted(["Calanus", *names])


def test_a_folder_of_somebody_else_is_said_and_nothing_changes(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Calanus\n")
    if os.geteuid():
        tmp_path.chmod(0o555)
    code = """
import os, sys
from shared.errors import StorageError
from shared.vocabulary import add
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    add(sys.argv[1], "Salpa", {})
except StorageError as error:
    print(error)
"""
    let_others_in(tmp_path)
    if not os.geteuid():
        tmp_path.chmod(0o755)
    run = [sys.executable, "-c", code, str(path)]
    said = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tmp_path.chmod(0o755)
    assert said.startswith(f"Not allowed to use {path}")
    assert path.read_text() == "Calanus\n"


def test_a_bucket_that_must_not_be_written_is_said(guarded_s3):
    with pytest.raises(StorageError) as error:
        add("s3://guarded/models/a.txt", "Salpa", guarded_s3)
    assert guarded_s3["AWS_SECRET_ACCESS_KEY"] not in str(error.value)
    assert load("s3://guarded/models/a.txt", guarded_s3).names == ("readable",)
