"""What `card.json` holds: the card of a model version, as pydantic models.

Made by `card.build`, read by everybody; this module imports nothing that takes long.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

SCHEMA = 1  # of `card.json`; readers take newer ones and leave out what they do not know


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Figure(_Part):
    """A measured value with its 95% interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


class ClassScore(_Part):
    """One class in one split; `n` is its true images."""

    label: str
    n: int
    precision: float
    recall: Figure
    f1: Figure


class SliceScore(_Part):
    """One value of a sample field, such as depth "0 to 10"; `n` is its images."""

    field: str
    value: str
    n: int
    top1: Figure
    macro_f1: Figure


class Evaluation(_Part):
    """How the version did on one split."""

    split: str
    n: int
    top1: Figure
    top5: float
    macro_precision: float
    macro_recall: float
    macro_f1: Figure
    ece: float  # expected calibration error
    runtime: str | None = None
    per_class: list[ClassScore] = []
    slices: list[SliceScore] = []


class Vocabulary(_Part):
    """The names that labels could have when it was trained."""

    origin: str
    names: list[str]


class Sync(_Part):
    """A run that had sent corrections to the label store before."""

    run: str
    at: str  # ISO 8601, UTC
    by: str | None = None
    updated: int = 0


class Snapshot(_Part):
    """The snapshot of the dataset, or why there is none."""

    name: str | None = None
    why_not: str | None = None


class Data(_Part):
    """What it learned from; all counts are ROIs."""

    digest: str
    dataset: str | None = None
    dataset_id: str | None = None
    label_field: str = "ground_truth"
    view: list[dict[str, Any]] = []  # the stages of the view, as FiftyOne serializes them
    saved_view: str | None = None
    extra_views: list[str] = []
    group_field: str | None = None  # what the splits kept together
    counts: dict[str, int] = {}  # split -> ROIs used
    classes: dict[str, dict[str, int]] = {}  # class -> split -> ROIs used
    left_out: dict[str, int] = {}  # reason -> ROIs
    identical_across_splits: int = 0  # groups of identical images that stood in several splits; train's were left out
    identical_other_label: int = 0  # groups of identical images with different labels
    groups_across_splits: int = 0
    provenance: dict[str, int] = {}  # where the used labels came from -> ROIs
    vocabulary: Vocabulary | None = None
    synced: list[Sync] = []
    snapshot: Snapshot = Snapshot()


class Ancestor(_Part):
    """Weights that this version was fine-tuned from, the nearest first."""

    name: str
    sha256: str | None = None
    digest: str | None = None  # of the training data, where the registry knows it
    licence: str | None = None


class Training(_Part):
    """How it was trained."""

    options: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    epochs_done: int = 0
    libraries: dict[str, str] = {}
    python: str | None = None
    suite: str | None = None
    repeats: str | None = None  # the version that was trained again


class Cost(_Part):
    """What it took."""

    device: str | None = None
    seconds: float = 0.0
    price_per_hour: float | None = None


class MetricChange(_Part):
    """A metric of a split beside that of the previous version."""

    split: str
    metric: str
    before: float
    after: float
    same_rois: bool = False  # measured on the same images with the same labels, so that the two can be compared


class Relabelled(_Part):
    """Training rows of both versions whose label changed."""

    before: str
    after: str
    n: int


class Changes(_Part):
    """What is different from the previous version of the model; `why_not` where that is not known."""

    previous: str | None = None
    why_not: str | None = None
    same_data: bool = False
    metrics: list[MetricChange] = []
    classes_added: list[str] = []
    classes_removed: list[str] = []
    added: int = 0
    removed: int = 0
    moved: int = 0  # to another split
    reimaged: int = 0  # other bytes
    relabelled: list[Relabelled] = []


class Card(_Part):
    """All of it."""

    schema_version: int = SCHEMA
    model: str
    version: str
    created_at: str  # ISO 8601, UTC
    created_by: str | None = None
    run_id: str | None = None
    intended_use: str
    limitations: list[str]
    classes: list[str]
    framing: str
    imgsz: int
    weights_sha256: str
    licence: str
    data: Data
    training: Training
    base: list[Ancestor] = []
    evaluation: list[Evaluation]
    changes: Changes = Changes()
    cost: Cost = Cost()

    @property
    def name(self) -> str:
        """`<model>/<version>`."""
        return f"{self.model}/{self.version}"
