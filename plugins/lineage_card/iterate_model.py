"""`iterate_model`: once round the loop in one scheduled run, as far as a person has to decide."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from .compare_models import CompareModels
from .shared import runs, samples
from .shared.errors import InputError
from .shared.forms import Form
from .shared.jobs import apply_job, focus_job, split_job, train_job
from .shared.lineage.registry import CANDIDATE, PRODUCTION, Registry
from .shared.operators import Job, Spec, SuiteOperator, secrets
from .shared.runs import Monitor
from .shared.wording import many
from .write_card import WriteCard

# What a stage takes from another one, or what has another meaning there.
_GIVEN = {"model", "skip_existing", "repeat", "framing", "imgsz", "device", "label_field", "seed"}


def _parameters() -> dict[str, Any]:
    """The parameters of all stages, those of training first; each declared where it is used."""
    declared: dict[str, Any] = {
        name: field for name, field in train_job.Params.model_fields.items() if name != "repeat"
    }
    for stage in (split_job.Params, apply_job.Params, focus_job.Params):
        for name, field in stage.model_fields.items():
            if name not in _GIVEN:
                declared.setdefault(name, field)
    return {name: (field.annotation, field) for name, field in declared.items()}


class _Own(BaseModel):
    """What only this operator has."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    assign_splits: bool = Field(False, title="Assign splits first", description="ROIs without a split get one")
    compare_with: str = Field(
        PRODUCTION, title="Compare with", description="The alias whose version the new one is held against"
    )
    intended_use: str | None = Field(None, title="Intended use", description="For the card: what it is to be used for")
    limitations: str | None = Field(None, description="For the card: what it must not be used for, and why")
    notes: str | None = Field(None, description="For the card: what was changed this time", examples=["More copepods"])


class IterateModel(SuiteOperator):
    """Splits, trains, applies, evaluates, writes the card and compares; promotion is a person's."""

    spec = Spec(
        name="iterate_model",
        label="Iterate a model",
        description="Retrain, apply, evaluate, write the card, compare with production: a pipeline in a single run",
        icon="autorenew",
        writes="fiftyone",
        execution="delegated",
    )
    Params = create_model("Params", __base__=_Own, **_parameters())

    def form(self, form: Form) -> None:
        """Draws the inputs that matter; the rest on request."""
        form.field("model_name")
        label_field = form.label_field()
        names = [name for name, _ in form.models()]
        hub = ["yolov8n-cls.pt", "yolov8s-cls.pt", "yolov8n-cls.yaml"]
        form.choice("base_weights", [(name, name) for name in [*names, *hub]], free=True)
        form.registered(form.value("base_weights"))
        form.fields("epochs", "assign_splits", "compare_with", "intended_use", "limitations", "notes")
        model, alias = form.value("model_name"), form.value("compare_with")
        if model and (problem := _no_such_alias(model, alias, form.db)):
            form.error(problem)
        if not secrets(form.ctx).get("MBARI_ARTIFACTS"):
            form.warning("MBARI_ARTIFACTS is not set here: unless the worker has it, the model has nowhere to go.")
        if label_field and not form.value("assign_splits") and not _has_splits(form.ctx.dataset):
            form.error("No ROI has a split yet: tick 'Assign splits first', or run 'Assign train, val and test'.")
        shown = {"model_name", "label_field", "base_weights", "epochs", *_Own.model_fields}
        if form.on_request("More options: those of splits, training, applying and evaluating"):
            form.fields(*(name for name in self.Params.model_fields if name not in shown))

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Iterate ptvr on 1,144 ROIs"."""
        return f"Iterate {params.model_name} on {many(count, 'ROI')}"

    def work(self, job: Job) -> dict[str, Any]:
        """Goes through the stages, from the one where an earlier run of the same ended."""
        if problem := _no_such_alias(job.params.model_name, job.params.compare_with, job.db):
            raise InputError(problem)
        key = _key(job)
        runs.claim(job.db, job.run.id, key)
        kept = runs.left_by(job.db, job.run.id, key) if job.params.resume else {}
        job.run.keep(kept)
        results: dict[str, dict[str, Any]] = {}
        stages, again = _stages(job.params), ""
        for number, (name, stage) in enumerate(stages, start=1):
            if name == TRAINING:
                labels = train_job.labels_digest(job.view, job.params)
                if TRAINING in kept and kept.get(LABELS) != labels:
                    kept = {name: kept[name] for name in kept if name == SPLITS}
                    again = "Labels or splits have changed since an earlier run was broken off, so it trained anew."
            if name in kept:
                results[name] = kept[name]
                continue
            step = replace(job, run=_Stage(job.run, f"{number} of {len(stages)}, {name}"))
            result = stage(step, results)
            if job.run.stopping() and "version" not in result:
                return _result(results, kept, again, f"It was stopped at {name}.")
            results[name] = _short(result)
            job.run.keep({name: results[name], **({LABELS: labels} if name == TRAINING else {})})
        return _result(results, kept, again, "")


class _Stage(Monitor):
    """The run as a stage sees it: its progress says which stage it is."""

    def __init__(self, run: Monitor, name: str) -> None:
        self._run, self._name = run, name

    @property
    def id(self) -> str | None:
        return self._run.id

    def progress(self, done: int, total: int, what: str) -> None:
        self._run.progress(done, total, f"{self._name}: {what}")

    def stopping(self) -> bool:
        return self._run.stopping()


def _has_splits(dataset: Any) -> bool:
    return bool(dataset.match_tags("train").limit(1).count() and dataset.match_tags("val").limit(1).count())


def _no_such_alias(model: str, alias: str, db: Any) -> str | None:
    """Why there will be nothing to compare with, where an alias was named; production need not be there yet."""
    if alias == PRODUCTION or alias in Registry(db).aliases(model):
        return None
    return f"There is no {model}@{alias} to compare with: leave it at {PRODUCTION!r}, or name another alias."


def _key(job: Job) -> str:
    """Names what is done: the same parameters on the same view are the same iteration."""
    stages = job.view.view()._serialize(include_uuids=False)
    said = [job.params.model_dump(mode="json"), str(job.dataset._doc.id), stages]
    return f"iterate/{hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()}"


SPLITS, TRAINING = "splits", "training"
LABELS = "labels"  # what was trained on, as far as it is in FiftyOne
KEPT = (
    "message",
    "version",
    "top1",
    "macro_f1",
    "prediction_field",
    "eval_key",
    "focus",
    "overall",
    "differences",
    "card",
)
Stage = Callable[[Job, dict[str, dict[str, Any]]], dict[str, Any]]


def _stages(params: Any) -> list[tuple[str, Stage]]:
    stages: list[tuple[str, Stage]] = [
        (TRAINING, _train),
        ("applying", _apply),
        ("evaluating", _if_it_can(_evaluate)),
        ("card", _card),
        ("comparing", _if_it_can(_compare)),
    ]
    return [(SPLITS, _split), *stages] if params.assign_splits else stages


def _params(of: type[BaseModel], job: Job, **given: Any) -> Any:
    """A stage's parameters: those given by earlier stages, else this operator's."""
    own = {name: getattr(job.params, name) for name in of.model_fields if name in type(job.params).model_fields}
    return of(**{**own, **given})


def _split(job: Job, results: dict) -> dict[str, Any]:
    return split_job.work(replace(job, params=_params(split_job.Params, job)))


def _train(job: Job, results: dict) -> dict[str, Any]:
    return train_job.work(replace(job, params=_params(train_job.Params, job)))


def _apply(job: Job, results: dict) -> dict[str, Any]:
    record = Registry(job.db).resolve(results["training"]["version"])
    field = job.params.prediction_field or record.prediction_field
    begun = samples.writer(job.dataset, field) == record.name
    given = {"model": record.name, "skip_existing": begun, "framing": None, "imgsz": None}
    return apply_job.work(replace(job, params=_params(apply_job.Params, job, **given)))


def _evaluate(job: Job, results: dict) -> dict[str, Any]:
    given = {"prediction_field": results["applying"]["prediction_field"], "slices": job.params.slices or []}
    return focus_job.work(replace(job, params=_params(focus_job.Params, job, **given)))


def _card(job: Job, results: dict) -> dict[str, Any]:
    given = {"model": results["training"]["version"]}
    return WriteCard().work(replace(job, params=_params(WriteCard.Params, job, **given)))


def _compare(job: Job, results: dict) -> dict[str, Any]:
    version, alias = results["training"]["version"], job.params.compare_with
    record = Registry(job.db).resolve(version)
    holder = Registry(job.db).aliases(record.model).get(alias)
    if holder is None:
        return {"message": f"No version is {record.model}@{alias} yet, so there is nothing to compare with."}
    if holder == record.version:
        return {"message": f"It is {record.model}@{alias} itself, so there is nothing to compare with."}
    named = [f"{record.model}/{holder}", version]
    given = {"models": named, "slices": job.params.slices or []}
    return CompareModels().work(replace(job, params=_params(CompareModels.Params, job, **given)))


def _if_it_can(stage: Stage) -> Stage:
    """A stage that judges: where there is nothing to judge by, it says so, and the model is there all the same."""

    def tried(job: Job, results: dict) -> dict[str, Any]:
        try:
            return stage(job, results)
        except InputError as error:
            return {"message": str(error)}

    return tried


def _short(result: dict[str, Any]) -> dict[str, Any]:
    """What later stages, and the person, need of a stage's result."""
    return {name: result[name] for name in KEPT if name in result}


def _result(results: dict[str, dict[str, Any]], kept: dict[str, Any], again: str, end: str) -> dict[str, Any]:
    training, compared = results.get("training", {}), results.get("comparing", {})
    said = [f"{training['version']} is there; no alias but {CANDIDATE!r} was moved."] if training else []
    if done := [name for name in results if name in kept]:
        said.append(f"It went on from where an earlier run had ended: {', '.join(done)} had been done.")
    if again:
        said.append(again)
    if "comparing" in results:
        said.append(compared["message"])
        said.append("Next: look at its card and into its focus list, then 'Promote to production' if it is to be used.")
    return {
        "message": " ".join([*said, *([end] if end else [])]),
        "version": training.get("version"),
        "top1": training.get("top1"),
        "macro_f1": training.get("macro_f1"),
        "stages": [{"stage": name, "result": result.get("message", "")} for name, result in results.items()],
        "overall": compared.get("overall"),
        "differences": compared.get("differences"),
        "focus": results.get("evaluating", {}).get("focus"),
        "prediction_field": results.get("applying", {}).get("prediction_field"),
        "eval_key": results.get("evaluating", {}).get("eval_key"),
        "card": results.get("card", {}).get("card"),
    }
