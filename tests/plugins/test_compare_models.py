"""`compare_models` through FiftyOne: what is compared, what is written to the samples, what is refused."""

from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from tests import rois
from tests.published import fitted, hide_openvino, row, version
from tests.worker import delegate, form, result

COMPARE = "@mbari/lineage_card/compare_models"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[Path]:
    """Of a model that learned from many images, and of one that learned from few."""
    folder, rng = tmp_path_factory.mktemp("weights"), np.random.default_rng(7)
    paths = [folder / f"{i}.png" for i in range(45)]
    for i, path in enumerate(paths):
        rois.draw(path, i % 3, rng)
    labels = [rois.CLASSES[i % 3] for i in range(45)]
    return [
        fitted(folder / "many.pt", list(map(str, paths)), labels),
        fitted(folder / "few.pt", list(map(str, paths[:5])), labels[:5], seed=1),
    ]


@pytest.fixture(autouse=True)
def torch_only(monkeypatch):
    hide_openvino(monkeypatch)


@pytest.fixture
def plankton(dataset, tmp_path, monkeypatch):
    """12 drawn ROIs of each class, at two depths, by day; the last one has no label, and the last but one no file."""
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 12))
    dataset.set_values("depth", [float(i % 2) for i in range(36)])
    last = dataset.last()
    last["ground_truth"] = None
    last.save()
    Path(dataset.values("filepath")[-2]).unlink()
    return dataset


@pytest.fixture
def two(registry, plankton, tmp_path, weights):
    """Two versions; what the second one was fine-tuned from learned from the first sample."""
    trained_on = [row(plankton.first().id, "x", "train", "0" * 64, str(plankton._doc.id))]
    ancestor = version(registry, tmp_path, model="old", rows=trained_on)
    first = version(registry, tmp_path, weights[1])
    second = version(registry, tmp_path, weights[0], base_version=ancestor.name)
    registry.set_alias("m", "production", first.version)
    registry.set_alias("m", "candidate", second.version)
    return first, second


def compare(dataset, **params):
    outcome = foo.execute_operator(COMPARE, {"dataset": dataset, "params": params}).result
    dataset.reload()
    return outcome


def test_two_versions_on_samples_that_neither_learned_from(plankton, two):
    first, second = two
    outcome = compare(plankton, models=["m@production", "m"], slices=["depth"])
    assert outcome["models"] == [first.name, second.name]
    assert outcome["counts"] == {
        "compared": 33,
        "without label": 1,
        "trained on": 1,
        "same image as one trained on": 0,
        "unreadable": 1,
    }
    assert plankton.match_tags("unreadable").count() == 1
    columns = plankton.exists("comparison").values(
        ["ground_truth.label", *(f"{record.prediction_field}.label" for record in two), "comparison"]
    )
    told = list(zip(*columns, strict=True))
    assert len(told) == 33
    assert plankton.first().comparison is None
    said = {
        (True, True): "all right",
        (False, False): "all wrong",
        (True, False): f"right: {first.name}",
        (False, True): f"right: {second.name}",
    }
    expected = [
        said[a == label, b == label] + (", differently" if a != b and label not in (a, b) else "")
        for label, a, b, _ in told
    ]
    assert [verdict for *_, verdict in told] == expected

    right = [sum(answers[i] == answers[0] for answers in told) for i in (1, 2)]
    assert right[1] > right[0]  # else this shows little
    assert [line["top-1"][:5] for line in outcome["overall"]] == [f"{count / 33:.3f}" for count in right]
    assert [line["aliases"] for line in outcome["overall"]] == ["production", "candidate"]
    assert outcome["differences"][0]["top-1"].startswith(f"{(right[1] - right[0]) / 33:+.3f} (")
    assert [line["predictions"] for line in outcome["overall"]] == [record.prediction_field for record in two]
    assert {line["class"]: line["n"] for line in outcome["by_class"]} == dict(
        zip(rois.CLASSES, (11, 12, 10), strict=True)
    )
    assert [(line["field"], line["value"], line["n"]) for line in outcome["by_slice"]] == [
        ("depth", "0", 16),
        ("depth", "1", 17),
    ]

    info = plankton.get_field(second.prediction_field).info
    assert (info["mbari_model"], info["confidence_threshold"]) == (second.name, 0.0)
    verdicts = [answers[3] for answers in told]
    for name, chosen in {
        "compare: all wrong": {"all wrong", "all wrong, differently"},
        "compare: disagree": {said[True, False], said[False, True], "all wrong, differently"},
        f"compare: only {first.name} right": {said[True, False]},
        f"compare: only {second.name} right": {said[False, True]},
    }.items():
        assert name in outcome["saved_views"]
        assert len(plankton.load_saved_view(name)) == sum(verdict in chosen for verdict in verdicts)


def test_the_next_comparison_takes_the_place_of_the_last(plankton, two, registry, weights, tmp_path):
    first, second = two
    compare(plankton, models=["m@production", "m"])
    plankton.save_view("compare: mine", plankton.limit(3))
    third = version(registry, tmp_path, weights[0], model="n")
    outcome = foo.execute_operator(
        COMPARE, {"view": plankton.limit(10), "params": {"models": [second.name, third.name]}}
    ).result
    plankton.reload()
    assert plankton.exists("comparison").count() == 9
    assert set(plankton.list_saved_views()) == {*outcome["saved_views"], "compare: mine"}
    assert f"compare: only {first.name} right" not in plankton.list_saved_views()
    # The same weights: nothing tells them apart, and the prediction of the first time stays as it was.
    assert plankton.count_values("comparison").keys() <= {None, "all right", "all wrong"}
    assert "cannot be held, on fewer than 30 ROIs, against" in outcome["message"]
    assert plankton.exists(second.prediction_field).count() == 33


def test_one_is_compared_with_the_version_in_production(plankton, two):
    first, second = two
    outcome = result(delegate(COMPARE, plankton, plankton.limit(12), models=["m"]))
    assert outcome["models"] == [first.name, second.name]
    assert any(f"Compared with {first.name}: {second.name}." in text for text in form(COMPARE, plankton, models=["m"]))
    alone = compare(plankton, models=["m@production", first.name])
    assert alone["models"] == [first.name]
    assert alone["saved_views"] == ["compare: all wrong"]
    assert alone["differences"] == []


def test_a_prediction_that_says_the_same_keeps_its_logits(plankton, two):
    _, second = two
    params = {"model": second.name, "store_logits": True}
    foo.execute_operator("@mbari/apply_model/apply_model", {"dataset": plankton, "params": params})
    compare(plankton, models=["m"])
    field = second.prediction_field
    assert all(logits is not None for logits in plankton.exists(field).values(f"{field}.logits"))


def test_what_was_trained_on_is_said_where_it_is_not_known(plankton, two, registry, tmp_path, weights):
    bare = version(registry, tmp_path, weights[0], model="bare", rows=None, base="s3://lab/leaf.pt")
    outcome = compare(plankton, models=[bare.name])
    assert f"What {bare.name} was trained on is not known: it was published without a manifest." in outcome["message"]
    assert "What s3://lab/leaf.pt had been trained on before is not known here." in outcome["message"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"models": ["m@gone"]}, 'no alias "gone"'),
        ({"models": ["old"]}, 'model "old" has no alias "candidate"'),
        ({"models": ["/data/x.pt"]}, "is a file or an address, not a version"),
        ({"models": []}, "'models' cannot be"),
        ({"models": ["m"], "slices": ["place"]}, "no field 'place' to slice by"),
        ({"models": ["m"], "label_field": "other"}, "no Classification field 'other'"),
    ],
    ids=["alias", "model", "file", "none", "slice", "label field"],
)
def test_what_cannot_be_compared_is_refused(plankton, two, params, said):
    schema = set(plankton.get_field_schema())
    with pytest.raises(ExecutionError, match=said):
        compare(plankton, **params)
    plankton.reload()
    assert set(plankton.get_field_schema()) == schema


def test_a_field_that_cannot_be_sliced_by_is_named(plankton, two):
    plankton.add_sample_field("empty", fo.StringField)
    with pytest.raises(ExecutionError, match=r"'empty' cannot be sliced by: it has no value in any sample\."):
        compare(plankton, models=["m"], slices=["empty"])


def test_fields_of_others_are_not_written_over(plankton, two):
    first, _ = two
    plankton.add_sample_field("comparison", fo.StringField)
    with pytest.raises(ExecutionError, match="field 'comparison' exists and no comparison of this suite made it"):
        compare(plankton, models=["m"])
    assert any("'comparison' exists" in text for text in form(COMPARE, plankton, models=["m"]))
    plankton.delete_sample_field("comparison")
    plankton.add_sample_field(first.prediction_field, fo.StringField)
    with pytest.raises(ExecutionError, match=f"The predictions of {first.name} go to '{first.prediction_field}'"):
        compare(plankton, models=["m"])


def test_when_nothing_is_left_it_says_what_was_left_out(plankton, two):
    with pytest.raises(ExecutionError, match=r"nothing to compare on: of 1 ROIs 0 have no label.*Left out: 1 that one"):
        foo.execute_operator(COMPARE, {"view": plankton.limit(1), "params": {"models": ["m"]}})
