"""The base of every operator: one declaration gives execution options, form, record, errors.

An operator says what it is (`Spec`), which parameters it takes (`Params`, a pydantic model), and
does its work in `work(job)`; everything that FiftyOne and the person need around that is here.
"""

from __future__ import annotations

import base64
import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import fiftyone.core.odm as odm
import fiftyone.operators as foo
import fiftyone.operators.types as types
import fiftyone.server.view as fosv
from pydantic import BaseModel

from .enterprise import users
from .errors import InputError, SuiteError
from .forms import Form, lost_selection
from .parameters import validate
from .runs import Monitor, Run
from .samples import not_samples
from .tables import show_table
from .wording import many

# What each is for; every fiftyone.yml names them all.
SECRETS = {
    "MBARI_ARTIFACTS": "Where model versions and checkpoints are kept: a folder that every worker sees, or "
    "`s3://bucket/prefix`",
    "MBARI_LABEL_STORE": "The database of record: `mongodb://host/<database>?collection=...`, or "
    "`tator+https://host/<project>?version=...&type=...`; see the README of `sync_back`",
    "MBARI_LABEL_STORE_TOKEN": "The password of the label store's user, where the URI names one without; for Tator "
    "the API token",
    "MBARI_VOCABULARY": "The names that labels may have: a file or `s3://bucket/key`, text with one name a line or a "
    "YAML list",
    "MBARI_TRUSTED_WEIGHTS": "URI prefixes, separated by commas: model files from elsewhere are refused",
    "MBARI_WEBHOOK_URL": "Where new versions, promotions and failed gates are posted, in a form that Slack takes",
    "MBARI_PRICE_PER_HOUR": "What an hour of the GPU worker costs, for estimates, cards and `show_runs`",
    "AWS_ACCESS_KEY_ID": "Access to S3, where the worker has no role of its own",
    "AWS_SECRET_ACCESS_KEY": "The same",
    "AWS_SESSION_TOKEN": "The same, for temporary credentials",
    "AWS_DEFAULT_REGION": "The region of the bucket",
    "AWS_ENDPOINT_URL": "Another store that speaks S3, such as MinIO",
}

RISK = {"nothing": "low", "fiftyone": "medium", "outside": "high"}


@dataclass(frozen=True)
class Spec:
    """What an operator is, in one place.

    The risk level that FiftyOne shows to agents follows from what it writes: low where it only reads, medium where it
    writes in FiftyOne (files that it adds below the artifact root counted in), high where others than FiftyOne's users
    depend on what it changes: the label store, the list of the vocabulary, the version in production.

    Attributes:
        name: the last part of its URI
        label: its name in the operator browser
        description: one sentence for the operator browser
        icon: the name of a Material icon
        writes: where it changes anything, at the most: "nothing" (but the record of its run), "fiftyone" or "outside"
        execution: "immediate" only; "delegated" only; or "either"
        quick: whether "either" means at once unless the person schedules it; else scheduled is the first choice
        target: whether it works on samples that the person chooses
        needs_dataset: whether it can be run without a dataset
        distributed: whether FiftyOne Enterprise may cut it into parts for several workers
        recorded: whether each run leaves a record (long or changing operators)
        button: whether it has a button above the grid
        at_once: whether that button runs it at once, as its form stands, on what was chosen: never on a whole dataset
    """

    name: str
    label: str
    description: str
    icon: str
    writes: Literal["nothing", "fiftyone", "outside"]
    execution: Literal["immediate", "delegated", "either"] = "either"
    quick: bool = False
    target: bool = True
    needs_dataset: bool = True
    distributed: bool = False
    recorded: bool = True
    button: bool = False
    at_once: bool = False


@dataclass
class Job:
    """What an operator's work gets to see.

    Attributes:
        params: the validated parameters
        dataset: the dataset, or None
        view: the samples to work on, or None for operators without a target
        secrets: the secrets that are set, by name
        run: progress and the question whether to stop; a `Run` where the operator is recorded
        user: who started it, or None
        db: the MongoDB database of FiftyOne, for the suite's own collections
        shown: the samples that the App shows, whatever of them the target is; None without a dataset
    """

    params: Any
    dataset: Any
    view: Any
    secrets: Mapping[str, str]
    run: Monitor
    user: str | None
    db: Any
    shown: Any = None


class SuiteOperator(foo.Operator):
    """Base of the suite's operators; subclasses give `spec`, `Params` and `work`."""

    spec: ClassVar[Spec]

    class Params(BaseModel):
        """The operator's parameters."""

    @property
    def config(self) -> foo.OperatorConfig:
        """FiftyOne's view of the declaration."""
        spec = self.spec
        return foo.OperatorConfig(
            name=spec.name,
            label=spec.label,
            description=spec.description,
            icon=spec.icon,
            dynamic=True,
            allow_immediate_execution=spec.execution != "delegated",
            allow_delegated_execution=spec.execution != "immediate",
            default_choice_to_delegated=spec.execution == "either" and not spec.quick,
            allow_distributed_execution=spec.distributed,
            risk_level=RISK[spec.writes],
            view_target=spec.target,
        )

    def form(self, form: Form) -> None:
        """Adds the operator's inputs; by default every parameter as declared."""
        form.fields(*self.Params.model_fields)

    def run_name(self, params: Any, count: int | None) -> str:
        """What people call this run; `count` is the number of samples it works on."""
        return self.spec.label if count is None else f"{self.spec.label} on {many(count, 'ROI')}"

    def work(self, job: Job) -> dict[str, Any]:
        """Does the work.

        Returns:
            JSON-ready counts; "message" is one paragraph for the person, lists of dicts become tables; "download", a
            dict of "name", "text" and "type" (of MIME; CSV by default), is a file that the App hands to the person;
            "open_view", the name of a saved view of the open dataset, is one that the App then opens

        Raises:
            SuiteError: when nothing could be done; the message is shown as it is
        """
        raise TypeError(f"{type(self).__name__} does not say what it does")

    def resolve_placement(self, ctx: Any) -> types.Placement | None:
        """A button above the grid, for operators that want one."""
        if not self.spec.button:
            return None
        button = types.Button(label=self.spec.label, icon=self.spec.icon, prompt=not self.spec.at_once)
        places = types.Places
        where = places.SAMPLES_GRID_ACTIONS if self.spec.at_once else places.SAMPLES_GRID_SECONDARY_ACTIONS
        return types.Placement(where, button)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Draws the form."""
        form = Form(ctx, self.Params)
        if self.spec.needs_dataset and ctx.dataset is None:
            form.error("Open a dataset first.")
        elif not self.spec.target or form.target(target_view(ctx)):
            try:
                self.form(form)
            except SuiteError as error:  # what the form computes may be impossible, as the run would be
                form.error(str(error))
            form.check()
        return types.Property(form.inputs, view=types.View(label=self.spec.label))

    def resolve_run_name(self, ctx: Any) -> str:
        """The name under which the Runs page lists this execution."""
        try:
            params = validate(self.Params, ctx.params)
        except InputError:
            return self.spec.label  # the run itself says what is wrong
        return self.run_name(params, target_view(ctx).count() if self.spec.target else None)

    def resolve_output(self, ctx: Any) -> types.Property:
        """Shows a result: its message, its tables, then the remaining figures; what is empty is left out."""
        outputs = types.Object()
        result = {name: value for name, value in (ctx.results or {}).items() if value not in (None, "", [], {})}
        if message := result.pop("message", None):
            kind = types.Warning if "stopped" in result or result.get("failed") else types.Notice
            outputs.view("message", kind(label=message))
        if not ctx.delegated:
            _show_views(outputs, result.pop("saved_views", ()))
        tables = {name: rows for name, value in result.items() if (rows := _rows(name, value))}
        for name, rows in sorted(tables.items(), key=lambda table: isinstance(result[table[0]], Mapping)):
            # Under a name of its own: FiftyOne would show the raw values of the result's.
            show_table(outputs, f"_table_{name}", rows, _label(name))
        for name in [name for name in result if name not in tables]:
            outputs.str(name, label=_label(name), read_only=True)
        return types.Property(outputs, view=types.View(label=self.spec.label))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Validates, does the work under a record, and makes every error say itself plainly."""
        try:
            return self._execute(ctx)
        except SuiteError as error:
            # FiftyOne shows `traceback.format_exc()`, which puts a cause first: so the one sentence
            # a person needs stands at the top, and the traceback below it for whoever wants it.
            raise error from type(error)(str(error))

    def _execute(self, ctx: Any) -> dict[str, Any]:
        params = validate(self.Params, ctx.params)
        if self.spec.needs_dataset and ctx.dataset is None:
            raise InputError("Open a dataset first.")
        if self.spec.target and (gone := lost_selection(ctx)):
            raise InputError(gone)
        view = target_view(ctx) if self.spec.target else None
        if view is not None and (problem := not_samples(view)):
            raise InputError(problem)
        if self.spec.at_once and nothing_chosen(ctx, view):
            raise InputError(f"{self.spec.label}: select ROIs or open a view first; this is not for a whole dataset.")
        db = odm.get_db_conn()
        user = users.name(ctx)
        if not self.spec.recorded:  # quick ones: nothing to stop, nothing to look up later
            return self.work(Job(params, ctx.dataset, view, secrets(ctx), Monitor(), user, db, shown(ctx)))
        operation = ctx.request_params.get("run_doc") if ctx.delegated else None
        run = Run(
            db,
            self.uri,
            self.run_name(params, view.count() if view is not None else None),
            params.model_dump(mode="json"),
            dataset=ctx.dataset.name if ctx.dataset is not None else None,
            by=user,
            operation=str(operation) if operation else None,
            show=lambda fraction, label: ctx.set_progress(progress=fraction, label=label),
            cancelled=lambda: bool(operation) and _was_marked_failed(operation),
        )
        try:
            with _collecting_only_new():
                result = self.work(Job(params, ctx.dataset, view, secrets(ctx), run, user, db, shown(ctx)))
        except BaseException as error:
            run.fail(error)
            raise
        download, open_view = result.pop("download", None), result.pop("open_view", None)
        result = {**result, "run": run.id}
        if run.stop_reason:
            result["stopped"] = run.stop_reason
        run.finish(result)
        if not ctx.delegated:
            if _open_view_is_gone(ctx):  # FiftyOne cannot load a dataset again with such a view open
                ctx.ops.open_dataset(ctx.dataset.name)
                ctx.ops.reload_samples()  # a view of the same stages may show others now
            else:
                ctx.ops.reload_dataset()
            if self.spec.at_once:  # nothing else shows the result
                ctx.ops.clear_selected_samples()
                ctx.ops.notify(result["message"], variant="success")
            if download:
                data = base64.b64encode(download["text"].encode()).decode()
                kind = download.get("type", "text/csv")
                ctx.ops.browser_download(f"data:{kind};charset=utf-8;base64,{data}", download["name"])
            if open_view:
                ctx.dataset.reload()  # the App's is another object than the one that the work has loaded
                # Not by its name, which the App knows only some time after it has loaded the dataset again.
                ctx.ops.set_view(ctx.dataset.load_saved_view(open_view))
        return result


@contextmanager
def _collecting_only_new() -> Iterator[None]:
    """Spares the garbage collector what was there before: FiftyOne's hundreds of thousands of objects.

    A run that makes as many would have them gone through several times over, which takes as long as all the rest of
    sending ten thousand labels. What has become garbage before is collected afterwards.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def target_view(ctx: Any) -> Any:
    """The samples to work on: an explicit `view_target`, else the selection, else the current view.

    FiftyOne's own `ctx.target_view()` does not look at a selection that nobody named as the target.
    """
    view = shown(ctx)
    if _named_target(ctx) is None and ctx.selected:
        return view.select(ctx.selected)
    return ctx.target_view()


def _named_target(ctx: Any) -> Any:
    return ctx.params.get("view_target") or ctx.request_params.get("view_target")


def nothing_chosen(ctx: Any, view: Any) -> bool:
    """Whether a target is the whole dataset only because nobody has chosen anything."""
    return _named_target(ctx) is None and not ctx.selected and view.count() == ctx.dataset.count()


def shown(ctx: Any) -> Any:
    """The samples that the App shows, or None without a dataset.

    FiftyOne's own `ctx.view` forgets the filters of the sidebar where a saved view is open; it is put right.
    """
    if ctx._view is None and ctx.dataset is not None and ctx.request_params.get("view_name"):
        filters, extended = ctx.request_params.get("filters"), ctx.request_params.get("extended")
        if filters or extended:
            ctx._view = fosv.get_extended_view(ctx.view, filters, extended_stages=extended)
    return ctx.view


def _open_view_is_gone(ctx: Any) -> bool:
    """Whether the saved view that the App shows is there no more, such as that of an earlier focus list."""
    name = ctx.request_params.get("view_name")
    if not name or ctx.dataset is None:
        return False
    ctx.dataset.reload()  # the work may have changed another object of it
    return not ctx.dataset.has_saved_view(name)


def _rows(name: str, value: Any) -> list[Mapping[str, Any]]:
    """A part of a result as the rows of a table: lists of dicts, a dict as its only row, texts as a column."""
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, list):
        return []
    return value if isinstance(value[0], Mapping) else [{name: text} for text in value]


def _show_views(outputs: types.Object, names: Iterable[str]) -> None:
    """A button for each saved view, which opens it by its name."""
    for number, name in enumerate(names):
        look = {"icon": "grid_view", "variant": "outlined"}
        outputs.btn(f"_open_{number}", f"Open '{name}'", on_click="set_view", params={"name": name}, **look)


def _label(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")


def secrets(ctx: Any) -> dict[str, str]:
    """The suite's secrets that are set, less white space that was pasted around them.

    The environment serves where an operator is not given any.
    """
    found = {name: str(ctx.secret(name) or "").strip() for name in SECRETS}
    return {name: value for name, value in found.items() if value}


def _was_marked_failed(operation: Any) -> bool:
    from fiftyone.operators.delegated import DelegatedOperationService
    from fiftyone.operators.executor import ExecutionRunState

    document = DelegatedOperationService().get(operation)
    return document is None or document.run_state == ExecutionRunState.FAILED
