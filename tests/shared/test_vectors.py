"""Vector fields of a real dataset: what is written is read again, as FiftyOne reads it too; two backbones never mix."""

import io
import zlib

import fiftyone as fo
import numpy as np
import pytest

from shared import samples, vectors
from shared.errors import InputError

INFO = {"backbone": "a", "layer": "CLS token", "weights_sha256": "0" * 64, "framing": "pad", "imgsz": 224, "dim": 5}


@pytest.fixture
def filled(dataset):
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(6)])
    return dataset


def some(n: int, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)


def test_what_is_written_is_read_again_and_by_fiftyone_too(filled):
    ids, given = filled.values("id"), some(6)
    vectors.prepare(filled, "embeddings", INFO)
    vectors.write(filled, "embeddings", ids[:4], given[:4])
    vectors.write(filled, "embeddings", ids[:4], given[:4])

    back, found, missing = vectors.read(filled.view(), "embeddings")
    assert (back, missing) == (ids[:4], 2)
    np.testing.assert_array_equal(found, given[:4])
    assert found.dtype == np.float32
    assert vectors.without(filled, "embeddings").values("id") == ids[4:]
    filled.reload()
    seen = filled.first()["embeddings"]
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, given[0])
    assert vectors.made_by(filled, "embeddings") == INFO


def test_the_order_is_that_of_the_view(filled):
    ids, given = filled.values("id"), some(6)
    vectors.prepare(filled, "embeddings", INFO)
    vectors.write(filled, "embeddings", ids, given)
    back, found, _ = vectors.read(filled.sort_by("filepath", reverse=True).limit(3), "embeddings")
    assert back == ids[:2:-1]
    np.testing.assert_array_equal(found, given[:2:-1])


def test_lists_of_numbers_and_double_precision_are_read_as_well(filled):
    filled.add_sample_field("listed", fo.ListField, subfield=fo.FloatField)
    filled.add_sample_field("doubles", fo.VectorField)
    given = some(6).astype(float)
    filled.set_values("listed", given.tolist())
    filled.set_values("doubles", list(given))
    for name in ("listed", "doubles"):
        np.testing.assert_array_equal(vectors.read(filled.view(), name)[1], given.astype(np.float32))


def test_vectors_that_cannot_be_compared_count_as_missing(filled):
    given = some(6)
    given[1, 2], given[2, 0], given[3] = np.nan, np.inf, 0
    vectors.prepare(filled, "embeddings", INFO)
    vectors.write(filled, "embeddings", filled.values("id"), given)
    ids, found, missing = vectors.read(filled.view(), "embeddings")
    assert (len(ids), missing, np.isfinite(found).all()) == (3, 3, True)


def test_lengths_that_differ_are_named(filled):
    ids = filled.values("id")
    vectors.prepare(filled, "embeddings", INFO)
    vectors.write(filled, "embeddings", ids[:4], some(4))
    vectors.write(filled, "embeddings", ids[4:], some(2, 3))
    with pytest.raises(InputError, match=r"differ in length \(4 of 5, 2 of 3\)"):
        vectors.read(filled.view(), "embeddings")


@pytest.mark.parametrize("make", [False, True])
def test_no_field_and_no_vector_say_what_to_run(filled, make):
    if make:
        vectors.prepare(filled, "embeddings", INFO)
    with pytest.raises(InputError, match="run 'Compute embeddings' first"):
        vectors.read(filled.view(), "embeddings")


def test_vectors_of_another_backbone_are_refused_until_there_are_none(filled):
    vectors.prepare(filled, "embeddings", INFO)
    other = {**INFO, "weights_sha256": "1" * 64}
    vectors.prepare(filled, "embeddings", other)  # nothing is in it yet
    vectors.write(filled, "embeddings", filled.values("id")[:1], some(1))
    with pytest.raises(InputError, match="cannot be mixed"):
        vectors.prepare(filled, "embeddings", INFO)
    vectors.prepare(filled, "embeddings", {**other, "written_at": "later"})  # the same backbone, another time
    assert vectors.refusal(filled, "embeddings", other) is None
    filled.clear_sample_field("embeddings")
    vectors.prepare(filled, "embeddings", INFO)


def test_vectors_of_unknown_origin_and_other_fields_are_refused(filled):
    filled.add_sample_field("mine", fo.VectorField)
    filled.set_values("mine", list(some(6)))
    assert "did not make" in vectors.refusal(filled, "mine")
    assert "not one of vectors" in vectors.refusal(filled, "filepath")
    assert vectors.refusal(filled, "new") is None


def test_patches_get_vectors_of_their_own(filled):
    boxes = [[], [[0, 0, 0.5, 0.5]], [[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5]], None, [], []]
    made = [None if b is None else fo.Detections(detections=[fo.Detection(bounding_box=x) for x in b]) for b in boxes]
    filled.set_values("boxes", made)
    found = list(vectors.patches(filled.view(), "boxes"))
    assert [(path, box) for _, _, path, box in found] == [
        ("/nowhere/1.png", [0, 0, 0.5, 0.5]),
        ("/nowhere/2.png", [0.1, 0.1, 0.2, 0.2]),
        ("/nowhere/2.png", [0.5, 0.5, 0.5, 0.5]),
    ]
    path = vectors.path_of("embeddings", "boxes")
    vectors.prepare(filled, path, INFO)
    given = some(3)
    vectors.write(filled, "embeddings", [(s, label) for s, label, _, _ in found[1:]], given[1:], "boxes")
    assert [label for _, label, _, _ in vectors.patches(filled.view(), "boxes", "embeddings")] == [found[0][1]]
    ids, back, missing = vectors.read(filled.view(), "embeddings", "boxes")
    assert (ids, missing) == ([found[1][1], found[2][1]], 1)
    np.testing.assert_array_equal(back, given[1:])
    with pytest.raises(InputError, match=r"no Detections field 'ground' \(it has: boxes\)"):
        vectors.read(filled.view(), "embeddings", "ground")
    filled.reload()
    np.testing.assert_array_equal(filled.skip(2).first().boxes.detections[1]["embeddings"], given[2])


def test_some_are_read_by_id_and_what_has_none_is_zero(filled, monkeypatch):
    monkeypatch.setattr(vectors, "CHUNK", 2)
    given = some(6)
    given[4, 0] = np.nan
    vectors.prepare(filled, "embeddings", INFO)
    vectors.write(filled, "embeddings", filled.values("id")[:5], given[:5])
    read = vectors.reader(filled, "embeddings")
    ids = samples.ids(filled)
    given[4:] = 0
    for order in ([5, 0, 3, 4, 1], [2], []):
        np.testing.assert_array_equal(read(ids[order]), given[order])
    filled.delete_samples(filled.values("id")[:1])  # since the ids were looked up
    np.testing.assert_array_equal(read(ids[:2]), [np.zeros(5), given[1]])


def test_vectors_that_are_missing_or_differ_are_named_where_some_are_read(filled):
    with pytest.raises(InputError, match="has no field 'embeddings': run 'Compute embeddings' first"):
        vectors.reader(filled, "embeddings")
    vectors.prepare(filled, "embeddings", INFO)
    with pytest.raises(InputError, match="has a vector in 'embeddings': run 'Compute embeddings' first"):
        vectors.reader(filled, "embeddings")
    with pytest.raises(InputError, match="is not one of vectors"):
        vectors.reader(filled, "filepath")
    ids = filled.values("id")
    vectors.write(filled, "embeddings", ids[:4], some(4))
    vectors.write(filled, "embeddings", ids[4:], some(2, 3))
    read = vectors.reader(filled, "embeddings")
    assert read(samples.ids(filled)[:4]).shape == (4, 5)
    with pytest.raises(InputError, match=r"differ in length \(5 and 3\)"):
        read(samples.ids(filled))


def test_what_is_no_vector_is_none():
    stored = vectors.encode(some(1)[0])
    np.testing.assert_array_equal(vectors.decode(stored), some(1)[0])
    for other in (np.array([None]), np.zeros((2, 2)), np.zeros(0), np.array(["a"])):
        with io.BytesIO() as file:
            np.save(file, other, allow_pickle=True)
            assert vectors.decode(zlib.compress(file.getvalue())) is None
    packed = zlib.decompress(stored)
    for broken in (stored[:-3], zlib.compress(packed[:-3]), zlib.compress(packed[:9]), zlib.compress(b""), b"", "text"):
        assert vectors.decode(broken) is None
