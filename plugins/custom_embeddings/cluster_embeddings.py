"""`cluster_embeddings`: a thin layer between FiftyOne and `shared/embeddings/clusters.py`."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .shared import __version__, clustered, samples, vectors
from .shared.errors import InputError
from .shared.forms import Form
from .shared.memo import cached
from .shared.operators import Job, Spec, SuiteOperator, target_view
from .shared.runs import claim
from .shared.wording import many

LISTED = 50  # clusters listed in a result, the largest first
LONG = 10_000  # characters of a view's stages that are kept: one of selected ROIs lists them all


class ClusterEmbeddings(SuiteOperator):
    """Groups ROIs that look alike, so that a group can be named at once."""

    spec = Spec(
        name="cluster_embeddings",
        label="Cluster embeddings",
        description="Group similar ROIs (HDBSCAN) into 'Unknown C1', 'Unknown C2', ...; 'Label clusters' names them",
        icon="bubble_chart",
        writes="fiftyone",
    )

    class Params(BaseModel):
        """Parameters of `cluster_embeddings`."""

        model_config = ConfigDict(extra="forbid")

        embeddings_field: str = Field(
            "embeddings", min_length=1, title="Embeddings field", description="Vectors of 'Compute embeddings'"
        )
        cluster_field: str = Field(
            "cluster",
            pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
            title="Cluster field",
            description="Letters, digits and '_'; made where there is none",
            examples=["look_alikes"],
        )
        min_cluster_size: int = Field(3, ge=2, description="The fewest ROIs that make a cluster", examples=[5])
        min_samples: int = Field(1, ge=1, description="Larger values leave more ROIs out as noise")
        alpha: float = Field(1.1, gt=0, le=10, description="HDBSCAN's: distances are divided by it")
        min_similarity: float = Field(
            0.9,
            gt=0,
            le=1,
            description="Cosine, above 0, to 1: ROIs outside of clusters join the nearest exemplar that is as similar, "
            "and clusters whose exemplars are become one",
        )
        seed: int = Field(51, description="Noted with the result; the method draws nothing at random")

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.vectors_field("embeddings_field")
        form.fields("cluster_field", "min_cluster_size", "min_similarity")
        dataset, field, view = form.ctx.dataset, form.value("cluster_field"), target_view(form.ctx)
        key = ("cluster_embeddings", field, *samples.state(view))
        if problem := cached(key, lambda: clustered.refusal(dataset, field, view)):
            form.error(problem)
        elif clustered.summary(dataset, field):
            form.notice(f"The clusters in {field!r} are replaced; choose another field to keep them.")
        if form.on_request("More options: min samples, alpha, seed"):
            form.fields("min_samples", "alpha", "seed")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Cluster 1,144 ROIs by embeddings"."""
        return f"Cluster {many(count, 'ROI')} by {params.embeddings_field}"

    def work(self, job: Job) -> dict[str, Any]:
        """Clusters the target, and writes clusters only once all are known."""
        from .shared.embeddings import clusters
        from .shared.embeddings.spanning import Stopped

        params, began = job.params, datetime.now(UTC)
        claim(job.db, job.run.id, f"clusters/{job.dataset._doc.id}/{params.cluster_field}")
        if problem := clustered.refusal(job.dataset, params.cluster_field, job.view):
            raise InputError(problem)
        job.run.progress(0, 0, "Reading embeddings")
        ids, found, missing = vectors.read(job.view, params.embeddings_field)
        if len(ids) < params.min_cluster_size:
            raise InputError(
                f"{len(ids):,} ROIs of the target have a vector, fewer than one cluster needs "
                f"({params.min_cluster_size:,}): choose a larger target."
            )
        try:
            result = clusters.cluster(
                found,
                min_cluster_size=params.min_cluster_size,
                min_samples=params.min_samples,
                alpha=params.alpha,
                min_similarity=params.min_similarity,
                monitor=job.run,
            )
        except Stopped:
            return {"message": "It was stopped before the clusters were known: nothing was written."}
        summary = _summary(job, result, len(ids), missing, began)
        views = clustered.write(job.dataset, params.cluster_field, ids, result, summary, job.run)
        return {**summary, "message": _message(summary, params, views), "saved_views": views}


def _summary(job: Job, result: Any, count: int, missing: int, began: datetime) -> dict[str, Any]:
    params = job.params
    sizes = result.sizes
    noise = count - int(sizes.sum())
    stages = str(job.view.view()._serialize(include_uuids=False))  # as text: MongoEngine would take parts for its own
    target = {"dataset": job.dataset.name, "stages": stages if len(stages) < LONG else "too many to keep"}
    call = f"foo.execute_operator('@mbari/custom_embeddings/cluster_embeddings', ctx, params={params.model_dump()})"
    return {
        "counts": {
            "rois": count,
            "clusters": len(sizes),
            "in_clusters": count - noise,
            "noise": noise,
            "noise_share": round(noise / count, 4),
            "before_merging": result.found,
            "joined": result.joined,
            "without_vector": missing,
        },
        "largest": [
            {"cluster": clustered.name(number), "ROIs": int(size)} for number, size in enumerate(sizes[:LISTED])
        ],
        "target": target,
        "parameters": params.model_dump(),
        "embeddings": dict(vectors.made_by(job.dataset, params.embeddings_field) or {}),
        "versions": {"suite": __version__, **{name: version(name) for name in ("scikit-learn", "numpy", "torch")}},
        "call": call,
        "seconds": round((datetime.now(UTC) - began).total_seconds(), 1),
    }


def _message(summary: dict[str, Any], params: Any, views: list[str]) -> str:
    counts = summary["counts"]
    if not counts["clusters"]:
        return (
            f"No clusters were found among {counts['rois']:,} ROIs: all stand alone. A smaller 'min cluster "
            "size', or more ROIs, may find some."
        )
    said = (
        f"{counts['clusters']:,} clusters hold {counts['in_clusters']:,} of {counts['rois']:,} ROIs "
        f"({100 * counts['noise_share']:.0f} % stand alone), in {params.cluster_field!r}."
    )
    if counts["without_vector"]:
        said += f" {counts['without_vector']:,} ROIs have no vector and were left out."
    return f"{said} Look at the saved views {' and '.join(map(repr, views))}; 'Label clusters' gives clusters a name."
