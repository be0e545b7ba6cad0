"""`visualize_embeddings`: a thin layer between FiftyOne and `shared/embeddings/{layout,store}.py`."""

import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .shared import vectors, workspaces
from .shared.embeddings import layout, store
from .shared.errors import InputError
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.runs import claim
from .shared.wording import many

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
LETTERS = "letters, digits and '_', a letter first"


class VisualizeEmbeddings(SuiteOperator):
    """Makes a map of the target's vectors for the Embeddings panel, and an index for sort by similarity."""

    spec = Spec(
        name="visualize_embeddings",
        label="Visualize embeddings",
        description="A map (UMAP or PCA) of similar ROIs for the Embeddings panel; on request, sort by similarity",
        icon="bubble_chart",
        writes="fiftyone",
    )

    class Params(BaseModel):
        """Parameters of `visualize_embeddings`."""

        model_config = ConfigDict(extra="forbid")

        embeddings_field: str = Field("embeddings", pattern=NAME, description=f"The vectors: {LETTERS}")
        patches_field: str | None = Field(
            None, title="Patches field", description="A point for each box in it, instead of each ROI"
        )
        method: Literal["umap", "pca"] = Field(
            "umap",
            description="UMAP keeps neighbours together, a minute or so for 50,000; PCA is a quick look",
            examples=["pca"],
        )
        brain_key: str = Field(
            "embeddings_map", pattern=NAME, description=f"The map's name: {LETTERS}", examples=["quick_look"]
        )
        similarity_key: str | None = Field(
            None,
            pattern=NAME,
            title="Similarity key",
            description=f"Given a name, sort by similarity works as well, for the whole dataset: {LETTERS}",
        )
        seed: int = Field(51, ge=0, le=2**32 - 1, description="The same vectors and seed give the same map")

        @model_validator(mode="after")
        def _two_names(self) -> Any:
            if self.similarity_key == self.brain_key:
                raise ValueError("the map and the similarity index need names that differ")
            return self

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        dataset = form.ctx.dataset
        store.forget_replaced(dataset)
        patches = vectors.patches_fields(dataset)
        if patches or form.value("patches_field"):
            form.choice("patches_field", [(name, name) for name in patches], free=True)
        if form.value("patches_field"):
            form.field("embeddings_field")
            path = vectors.path_of(form.value("embeddings_field"), form.value("patches_field"))
            if dataset.get_field(path) is None:
                form.error(f"The dataset has no field {path!r}: run 'Compute embeddings' first.")
        else:
            form.vectors_field("embeddings_field")
        form.fields("method", "brain_key", "similarity_key", "seed")
        for problem in _taken(dataset, form.value("brain_key"), form.value("similarity_key")):
            form.error(problem)
        if dataset.has_brain_run(form.value("brain_key")):
            form.notice(f"The map {form.value('brain_key')!r} is made anew: the earlier one stays until it is ready.")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Map 1,144 ROIs (UMAP)"."""
        return f"Map {many(count, 'ROI')} ({params.method.upper()})"

    def resolve_output(self, ctx: Any) -> Any:
        """Shows the result, and makes this process's App see the new map."""
        if ctx.dataset is not None:
            store.forget_replaced(ctx.dataset)
        return super().resolve_output(ctx)

    def work(self, job: Job) -> dict[str, Any]:
        """Computes the points, then registers them."""
        params, run, began = job.params, job.run, time.monotonic()
        for problem in _taken(job.dataset, params.brain_key, params.similarity_key):
            raise InputError(problem)
        if job.view.count() == 0:
            raise InputError("There is no sample in the chosen view; choose another target.")
        claim(job.db, run.id, f"map/{job.dataset._doc.id}/{params.brain_key}")
        run.progress(0, 0, "Reading the vectors")
        ids, found, missing = vectors.read(job.view, params.embeddings_field, params.patches_field)
        counts = {"samples": len(ids), "without_vector": missing}
        if run.stopping():
            return _stopped(job, counts)
        made = layout.points(found, method=params.method, seed=params.seed, monitor=run)
        if run.stopping():
            return _stopped(job, counts)
        run.progress(0, 0, f"Registering the map {params.brain_key!r}")
        info = vectors.made_by(job.dataset, vectors.path_of(params.embeddings_field, params.patches_field))
        deleted = store.register_map(
            job.dataset,
            params.brain_key,
            made,
            ids,
            embeddings_field=params.embeddings_field,
            patches_field=params.patches_field,
            backbone=info and info.get("backbone"),
        )
        del found
        beside = workspaces.save(job.dataset, workspaces.MAP)
        counts |= {"samples": len(ids) - deleted, "deleted_meanwhile": deleted}
        indexed, failed = None, ""
        if params.similarity_key and not run.stopping():
            run.progress(0, 0, f"Registering the similarity index {params.similarity_key!r}")
            try:
                indexed = store.register_similarity(
                    job.dataset, params.similarity_key, params.embeddings_field, params.patches_field
                )
            except InputError as error:  # of ROIs outside of the target; the map is made
                failed = f"The similarity index could not be made: {error}"
        return {
            "message": _message(params, made, counts, indexed, beside, failed),
            "brain_key": params.brain_key,
            "workspace": workspaces.MAP if beside else None,
            "similarity_key": params.similarity_key if indexed is not None else None,
            "ran": made.ran,
            "parameters": made.parameters,
            "counts": counts,
            "seconds": round(time.monotonic() - began, 1),
        }


def _taken(dataset: Any, brain_key: str, similarity_key: str | None) -> list[str]:
    """Why the keys must not be used, if they must not."""
    problems = [store.taken(dataset, brain_key, "visualization")]
    if similarity_key:
        problems.append(store.taken(dataset, similarity_key, "similarity"))
    return [problem for problem in problems if problem]


def _stopped(job: Job, counts: dict[str, int]) -> dict[str, Any]:
    key = job.params.brain_key
    kept = f"the earlier map {key!r} is as it was" if job.dataset.has_brain_run(key) else "there is no map yet"
    return {"message": f"It was stopped before the map was registered: {kept}.", "counts": counts}


def _message(params: Any, made: Any, counts: dict[str, int], indexed: int | None, beside: bool, failed: str) -> str:
    what = "patches" if params.patches_field else "ROIs"
    workspace = f"choose the workspace {workspaces.MAP!r} at the top right"
    opened = workspace if beside else "click the '+' beside Samples for the panel"
    said = [
        f"The map of {counts['samples']:,} {what} is ready ({made.ran}): {opened}, then choose {params.brain_key!r} in "
        "the Embeddings panel. There, 'Color by' shows a field, and the ROIs that you draw around with 'Select' are "
        "the target of any operator."
    ]
    if made.method != params.method:
        said.append(f"{counts['samples']:,} are too few for UMAP: it is PCA.")
    if counts["without_vector"]:
        said.append(
            f"{counts['without_vector']:,} have no vector in {params.embeddings_field!r} and are not on it: 'Compute "
            "embeddings' gives them one."
        )
    if counts["deleted_meanwhile"]:
        said.append(f"{counts['deleted_meanwhile']:,} were deleted meanwhile.")
    if indexed is not None:
        said.append(
            f"To sort by similarity, select one in the grid, click 'Sort by image similarity' above it and choose "
            f"{params.similarity_key!r}; it covers the {indexed:,} {what} of the dataset that have vectors."
        )
    elif failed:
        said.append(failed)
    elif params.similarity_key:
        said.append("It was stopped before the similarity index was registered.")
    return " ".join(said)
