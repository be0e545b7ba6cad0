"""The base of all operators, through FiftyOne's executor and its real delegated worker."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from bson import ObjectId
from fiftyone.operators.executor import ExecutionError, execute_or_delegate_operator, resolve_type
from fiftyone.operators.registry import OperatorRegistry

from shared import runs
from shared.forms import SELECTED
from tests.worker import error, operation, result, schedule, wait, worker

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = """
import time
from typing import Any
from pydantic import BaseModel, ConfigDict, Field
from .shared.errors import InputError
from .shared.operators import Spec, SuiteOperator

class Work(SuiteOperator):
    spec = Spec(name="work", label="Work", description="Does what the test asks for", icon="build", writes="nothing")

    class Params(BaseModel):
        model_config = ConfigDict(extra="forbid")
        how: str = "count"
        seconds: float = Field(60, ge=0)

    def work(self, job):
        if job.params.how == "our error":
            raise InputError("The day field is empty.")
        if job.params.how == "bug":
            return {"never": {}["missing"]}
        if job.params.how == "delete a view":
            job.dataset.delete_saved_view("gone")
        if job.params.how == "wait":
            until = time.monotonic() + job.params.seconds
            while not job.run.stopping() and time.monotonic() < until:
                job.run.progress(1, 4, "Waiting")
                time.sleep(0.1)
        return {"message": "Done.", "count": job.view.count(), "paths": sorted(job.view.values("filepath")),
                "secret": job.secrets.get("MBARI_PRICE_PER_HOUR")}

def register(plugin):
    plugin.register(Work)
"""

MANIFEST = """
name: "@test/base"
type: plugin
version: "1"
operators: [work]
secrets: [MBARI_PRICE_PER_HOUR]
"""

URI = "@test/base/work"


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """A plugins folder with one plugin that uses the base; this process and its workers see only that."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "base").mkdir()
    (folder / "base" / "fiftyone.yml").write_text(MANIFEST)
    (folder / "base" / "__init__.py").write_text(PLUGIN)
    (folder / "base" / "shared").symlink_to(ROOT / "shared")
    before, fo.config.plugins_dir = fo.config.plugins_dir, str(folder)
    yield folder
    fo.config.plugins_dir = before


@pytest.fixture
def samples(dataset, plugins):
    dataset.add_samples([fo.Sample(filepath=f"/{i}.png", tags=["even"] if i % 2 == 0 else []) for i in range(6)])
    return dataset


@pytest.fixture(scope="module")
def running_worker(plugins, tmp_path_factory):
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker(log, FIFTYONE_PLUGINS_DIR=str(plugins), MBARI_PRICE_PER_HOUR="3"):
        yield log


def run_now(dataset, **context):
    return foo.execute_operator(URI, {"dataset": dataset, "request_delegation": False, **context}).result


def record_of(dataset):
    import fiftyone.core.odm as odm

    return odm.get_db_conn()[runs.COLLECTION].find_one({"dataset": dataset.name}, sort=[("started_at", -1)])


def test_the_target_is_the_explicit_one_else_the_selection_else_the_view(samples):
    ids = samples.values("id")
    view = samples.match_tags("even")
    assert run_now(samples)["count"] == 6
    assert run_now(samples, view=view)["paths"] == ["/0.png", "/2.png", "/4.png"]
    assert run_now(samples, selected=ids[:2])["paths"] == ["/0.png", "/1.png"]
    assert run_now(samples, view=view, selected=[ids[0]])["paths"] == ["/0.png"]
    explicit = run_now(samples, view=view, selected=[ids[0]], params={"view_target": "DATASET"})
    assert explicit["count"] == 6
    assert run_now(samples, view=view, selected=[ids[0]], params={"view_target": "CURRENT_VIEW"})["count"] == 3


def test_views_of_parts_or_groups_of_samples_are_no_target(samples):
    samples.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    samples.set_values("boxes", [fo.Detections(detections=[fo.Detection(label="a")]) for _ in samples])
    patches, groups = samples.to_patches("boxes"), samples.group_by("tags")
    for view, what in ((patches, "parts"), (patches.limit(1), "parts"), (groups, "groups")):
        sentence = f"This view shows {what} of samples; open the samples themselves."
        for more in ({}, {"selected": view.values("id")[:1]}):
            with pytest.raises(ExecutionError, match=sentence):
                run_now(samples, view=view, **more)
        assert drawn(view) == ["view_target", "_selected", sentence]
        assert run_now(samples, view=view, params={"view_target": "DATASET"})["count"] == 6
    assert "how" in drawn(samples.view())
    one = groups.get_dynamic_group(["even"])  # what the App shows of an opened group
    assert run_now(samples, view=one)["count"] == 3


def drawn(view):
    """What a form draws on a view: the names of its inputs, and its error in words."""
    request = {"dataset_name": view._root_dataset.name, "view": view._serialize(), "params": {}}
    inputs = asyncio.run(resolve_type(OperatorRegistry(), URI, request)).to_json()["type"]["properties"]
    return [one["error_message"] if name.startswith("_problem") else name for name, one in inputs.items()]


def test_a_selection_that_got_lost_while_the_form_was_open_is_not_taken_for_the_whole_dataset(samples):
    opened = {SELECTED: 2}  # what the form sends along
    assert run_now(samples, selected=samples.values("id")[:2], params=opened)["count"] == 2
    with pytest.raises(ExecutionError, match="The selection of 2 is gone"):
        run_now(samples, params=opened)
    assert run_now(samples, params={SELECTED: 0})["count"] == len(samples)


def test_a_run_is_recorded_with_its_result(samples):
    outcome = run_now(samples)
    record = record_of(samples)
    assert str(record["_id"]) == outcome["run"]
    assert (record["name"], record["state"], record["operator"]) == ("Work on 6 ROIs", "completed", URI)
    assert record["result"]["count"] == 6


def test_an_error_of_ours_is_one_sentence_at_the_top(samples):
    with pytest.raises(ExecutionError) as caught:
        run_now(samples, params={"how": "our error"})
    assert str(caught.value).splitlines()[0] == "mbari.InputError: The day field is empty."
    assert record_of(samples)["error"] == {"message": "The day field is empty.", "traceback": None}


def test_a_bug_keeps_its_traceback(samples):
    with pytest.raises(ExecutionError) as caught:
        run_now(samples, params={"how": "bug"})
    assert "KeyError: 'missing'" in str(caught.value)
    assert "KeyError" in record_of(samples)["error"]["traceback"]


def test_wrong_parameters_are_refused_without_the_form_too(samples):
    with pytest.raises(ExecutionError, match="There is no parameter 'hwo'; did you mean 'how'"):
        run_now(samples, params={"hwo": "count"})


def test_options_follow_from_the_declaration(samples):
    operator = foo.get_operator(URI)
    assert operator.config.allow_delegated_execution
    assert operator.config.default_choice_to_delegated
    assert operator.config.risk_level.value == "low"


def test_a_delegated_run(samples, running_worker):
    scheduled = schedule(URI, samples, samples.limit(4))
    assert operation(scheduled).label == "Work on 4 ROIs"
    outcome = result(wait(scheduled))
    assert (outcome["count"], outcome["message"]) == (4, "Done.")
    assert outcome["secret"] == "3"
    assert record_of(samples)["operation"] == str(scheduled)


def test_a_delegated_error_says_its_sentence_first(samples, running_worker):
    failed = wait(schedule(URI, samples, how="our error"))
    assert error(failed).splitlines()[0] == "mbari.InputError: The day field is empty."


def test_progress_is_shown_and_a_request_to_stop_is_heard(samples, running_worker):
    scheduled = schedule(URI, samples, how="wait")
    document = wait(scheduled, until=lambda d: d.status and d.status.label)
    assert document.status.label.startswith("Waiting: 1 of 4")
    runs.request_stop(_db(), str(record_of(samples)["_id"]), "ann")
    outcome = result(wait(scheduled, seconds=30))
    assert outcome["stopped"] == "stopped by ann"
    assert record_of(samples)["state"] == "stopped"


def test_marking_the_delegated_operation_as_failed_ends_the_run(samples, running_worker):
    scheduled = schedule(URI, samples, how="wait")
    wait(scheduled, until=lambda d: d.status and d.status.label)
    fiftyone = Path(sys.executable).parent / "fiftyone"
    subprocess.run([fiftyone, "delegated", "fail", str(scheduled)], check=True, env=os.environ, capture_output=True)
    until = time.monotonic() + 30
    while record_of(samples)["state"] == "running":
        assert time.monotonic() < until
        time.sleep(0.2)
    assert record_of(samples)["state"] == "stopped"
    assert operation(scheduled).run_state == "failed"


def test_a_killed_worker_leaves_a_record_that_counts_as_lost(samples, plugins, tmp_path):
    with worker(tmp_path / "log", FIFTYONE_PLUGINS_DIR=str(plugins)) as process:
        scheduled = schedule(URI, samples, how="wait")
        wait(scheduled, until=lambda d: d.status and d.status.label)
        process.kill()
        process.wait()
    record = record_of(samples)
    assert record["state"] == "running"
    # A minute of silence, without the minute.
    _db()[runs.COLLECTION].update_one(
        {"_id": ObjectId(record["_id"])}, {"$set": {"alive_at": record["started_at"].replace(year=2020)}}
    )
    assert [r["lost"] for r in runs.running(_db()) if r["_id"] == record["_id"]] == [True]


def _db():
    import fiftyone.core.odm as odm

    return odm.get_db_conn()


@pytest.mark.parametrize(
    ("shown", "asked"), [("gone", ["open_dataset", "reload_samples"]), ("kept", ["reload_dataset"])]
)
def test_a_view_that_a_run_has_deleted_is_left_before_the_app_loads_the_dataset_again(samples, shown, asked):
    for name in ("gone", "kept"):
        samples.save_view(name, samples.limit(1))
    request = {"dataset_name": samples.name, "view_name": shown, "params": {"how": "delete a view"}}
    done = asyncio.run(execute_or_delegate_operator(URI, request))
    done.raise_exceptions()
    assert [one["operator_uri"].rpartition("/")[2] for one in done.executor.to_json()["requests"]] == asked
