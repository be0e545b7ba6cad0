"""What the READMEs say of the operators: it is what the code declares, and the examples run as they stand there."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import fiftyone.operators as foo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from pydantic import BaseModel, Field

from scripts import docs
from shared.runs import Run
from tests import labels, published, rois, versions

RUN = "6920f3a1c0ffee0123456789"  # what the examples call a run
CLASSES = ("Calanoida", "detritus", "fecal_pellet")
# The loop, as far as an operator needs what another one made; all others come first.
LAST = (
    "pull_labels",
    "correct_labels",
    "sync_back",
    "revert_sync",
    "export_history",
    "accept_predictions",
    "compute_embeddings",
    "mark_reviewed",
    "label_clusters",
    "rollback_alias",
)


@pytest.fixture(scope="module")
def plugins() -> list[docs.Plugin]:
    return docs.plugins()


@pytest.fixture(scope="module")
def examples(plugins) -> Mapping[str, str]:
    """The example of each operator, as it stands in the README of its plugin, by the operator's name."""
    found = {}
    for plugin in plugins:
        for block in re.findall(r"^```python\n(foo\..*?)^```", plugin.readme.read_text(), re.MULTILINE | re.DOTALL):
            found[request(block)[0].rpartition("/")[2]] = block
    return found


def request(block: str) -> tuple[str, Mapping[str, ast.expr]]:
    """The URI and the parts of the request of an example."""
    call = ast.parse(block).body[0].value
    uri, *rest = call.args
    parts = {
        ast.literal_eval(key): value for given in rest for key, value in zip(given.keys, given.values, strict=True)
    }
    return ast.literal_eval(uri), parts


# --- the pages ---


def test_no_page_is_stale() -> None:
    stale = [str(path.relative_to(docs.ROOT)) for path, text in docs.pages().items() if path.read_text() != text]
    assert not stale, f"run `make docs`: the code says something else than {', '.join(stale)}"


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    page = f"# Title\n\n{docs.BEGIN}\n\nold\n\n{docs.END}\n\n## More\n"
    assert docs.put(page, "new\n") == page.replace("old", "new")
    for broken in (page.replace(docs.END, ""), page + page):
        with pytest.raises(ValueError, match="a page needs these two lines"):
            docs.put(broken, "new")


def test_a_parameter_is_described_as_it_is_declared() -> None:
    class Params(BaseModel):
        plain: str
        share: float = Field(0.5, gt=0, le=1, title="Share | part", description="Of all")
        size: int | None = Field(None, ge=32, le=1024, multiple_of=32)
        kinds: list[Literal["a", "b"]] = Field(default=["a"], examples=[["b"]])
        name: str = Field("x", pattern="^[a-z]+$", examples=['ü "x"'])
        flag: bool = False

    spec = SimpleNamespace(
        name="made_up",
        label="Made up",
        description="does nothing",
        writes="nothing",
        execution="either",
        quick=False,
        button=True,
        at_once=False,
        target=True,
        needs_dataset=True,
    )
    heading, words, table, example = docs.chapter(SimpleNamespace(spec=spec, Params=Params, uri="@m/p/made_up"))
    assert heading == "### made_up"
    assert (
        words
        == "*Made up*: Does nothing. Scheduled by default, or at once; reads; a button above the grid opens its form."
    )
    assert table.splitlines()[2:] == [
        "| `plain` | text | must be given | *Plain* |",
        r"| `share` | number, above 0 to 1 | `0.5` | *Share \| part*: Of all |",
        "| `size` | whole number, from 32 to 1,024, a multiple of 32 | none | *Size* |",
        "| `kinds` | list of: `a` or `b` | `['a']` | *Kinds* |",
        "| `name` | text, like `^[a-z]+$` | `x` | *Name* |",
        "| `flag` | yes or no | `False` | *Flag* |",
    ]
    assert request(example.removeprefix("```python\n").removesuffix("\n```"))[1].keys() == {"view", "params"}
    assert '"params": {"kinds": ["b"], "name": "ü \\"x\\""}' in example


# --- the examples ---


def test_every_operator_has_an_example_that_its_parameters_allow(plugins, examples) -> None:
    operators = {operator.spec.name: operator for plugin in plugins for operator in plugin.operators}
    assert set(examples) == set(operators)
    for name, block in examples.items():
        uri, parts = request(block)
        operator = operators[name]
        assert uri == operator.uri
        validate = sys.modules[f"{type(operator).__module__.rpartition('.')[0]}.shared.parameters"].validate
        validate(operator.Params, ast.literal_eval(parts["params"]) if "params" in parts else {})
        assert ("view" in parts) == operator.spec.target
        assert ("request_delegation" in parts) == (operator.spec.execution == "delegated")


@pytest.fixture
def demo(dataset, registry, db, tmp_path, monkeypatch) -> Iterator[Any]:
    """A small dataset with what the examples name: classes, fields, a label store, two versions of the model `demo`."""
    published.hide_openvino(monkeypatch)
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("MBARI_LABEL_STORE", labels.store_uri(db.name))
    versions.fill(dataset, tmp_path / "rois")
    drawn = dataset.values("ground_truth.label")
    called = [CLASSES[rois.CLASSES.index(label)] for label in drawn]
    dataset.set_values("ground_truth.label", called)
    dataset.set_values("capture_day", dataset.values("day"))
    dataset.set_values("season", ["spring" if n % 2 else "autumn" for n in range(len(called))])
    dataset.set_values("embeddings", [[float(CLASSES.index(label)), n % 5, 1.0] for n, label in enumerate(called)])
    db["rois"].insert_many(
        [{"elemental_id": i, "label": label} for i, label in zip(dataset.values("elemental_id"), called, strict=True)]
    )
    weights = published.fitted(tmp_path / "net.pt", dataset.values("filepath"), called, classes=CLASSES)
    for _ in range(2):
        earlier = published.version(registry, tmp_path, weights, model="demo", classes=CLASSES)
        registry.set_alias("demo", "production", earlier.version)
    versions.trained(dataset, tmp_path, "demo")
    applied = {"model": "demo@production", "prediction_field": "pred_demo", "store_logits": True}
    foo.execute_operator("@mbari/apply_model/apply_model", {"dataset": dataset, "params": applied})
    dataset.reload()
    yield dataset
    DelegatedOperationService().delete_for_dataset(dataset._doc.id)


def test_the_examples_run_as_they_are(examples, demo, db) -> None:
    import fiftyone.core.odm as odm

    view, synced = demo.limit(30), None
    for name in [*sorted(set(examples) - set(LAST)), *LAST]:
        code = examples[name]
        if name == "stop_run":
            running = Run(odm.get_db_conn(), "@mbari/apply_model/apply_model", "Apply", {}, dataset=demo.name)
            code = code.replace(RUN, running.id)
        elif name == "revert_sync":
            code = code.replace(RUN, synced.result["run"])
        assert RUN not in code
        outcome = eval(code, {"foo": foo, "dataset": demo, "view": view})
        demo.reload()
        if name == "sync_back":
            synced = outcome
            assert outcome.result["updated"] > 0
        elif name == "stop_run":
            running.finish({})
        assert outcome.result
