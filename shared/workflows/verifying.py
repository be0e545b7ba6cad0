"""Whether a stored version is what its record says: hashes, classes, digest, metrics and card computed once more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np

from .. import __version__
from ..artifacts import Artifacts, require_space, sha256
from ..errors import StorageError, SuiteError
from ..lineage.registry import VersionRecord
from ..lineage.schema import Card
from ..roots import INDEX
from ..runs import Monitor

if TYPE_CHECKING:
    import pyarrow as pa

REPRODUCED: Literal["reproduced"] = "reproduced"
DIFFERS: Literal["differs"] = "differs"
UNCHECKED: Literal["cannot be checked"] = "cannot be checked"

CARD_TEXT = "text of the card"  # the one check that another release of the suite cannot make
STATES = (REPRODUCED, DIFFERS, UNCHECKED)

TOLERANCE = 1e-9  # of metrics: sums of the same numbers, on another processor
KEY = ["dataset_id", "sample_id"]
SLICE = "slice:"  # how the manifest's columns of slices begin
# What metrics had not before there were intervals and slices, and what is no metric.
LATER = {"intervals", "slices", "recall_interval", "f1_interval"}
NO_METRIC = {"runtime"}
NAMED = 5  # differences that a sentence names


@dataclass(frozen=True)
class Check:
    """One finding about a stored version.

    Attributes:
        what: what was looked at
        state: whether it is what the record says, or not, or that could not be seen
        detail: how it differs or why it cannot be checked; empty where there is nothing to say
    """

    what: str
    state: Literal["reproduced", "differs", "cannot be checked"]
    detail: str = ""


def verify(record: VersionRecord, root: Artifacts, folder: Path, monitor: Monitor | None = None) -> list[Check]:
    """Fetches all files of a version and computes anew what can be computed from them.

    Args:
        record: of the version, which is believed
        root: the artifact root
        folder: a local folder for the files, made if need be
        monitor: told the progress

    Returns:
        a check for each file and for each thing that is said of the version, whether reproduced or not

    Raises:
        StorageError: the artifact root cannot be reached, or the local disk does not hold the files
    """
    monitor = monitor or Monitor()
    stored = set(root.list(record.key))
    above = record.key.partition("/")[0]
    if not stored and not root.list(above):  # a folder that is not mounted looks empty
        raise StorageError(
            f"There is no version at all at {root.uri(above)}: is MBARI_ARTIFACTS the right place, and is it mounted?"
        )
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, sum(info.size for info in record.files.values()), f"Verifying {record.name}")
    files = []
    for number, name in enumerate(sorted(record.files)):
        monitor.progress(number, len(record.files), f"Verifying {record.name}")
        files.append(_file(record, name, root, folder))
    whole = {name for name, check in zip(sorted(record.files), files, strict=True) if check.state == REPRODUCED}
    version = _Version(record, folder, whole)
    return [*files, _index(record, root, stored), *version.checks()]


def _file(record: VersionRecord, name: str, root: Artifacts, folder: Path) -> Check:
    what = f"file {name}"
    try:
        root.fetch(record.key, {name: record.files[name]}, folder)
    except SuiteError as error:
        return Check(what, DIFFERS if _answers(root, record.key) else UNCHECKED, str(error))
    return Check(what, REPRODUCED)


def _answers(root: Artifacts, key: str) -> bool:
    """Whether the artifact root can be read at all: then what is wrong is wrong with a file."""
    try:
        root.list(key)
    except SuiteError:
        return False
    return True


def _index(record: VersionRecord, root: Artifacts, stored: set[str]) -> Check:
    what = "list of the files"
    known = {f"{record.key}/{name}" for name in (*record.files, INDEX)}
    try:
        published = root.published(record.key)
    except StorageError as error:
        return Check(what, DIFFERS if _answers(root, record.key) else UNCHECKED, str(error))
    said = []
    if published != record.files:
        said.append("it is missing" if published is None else "it names other files or hashes than the record")
    if more := sorted(stored - known):
        said.append(f"there are files that the record does not know: {_some(more)}")
    return Check(what, DIFFERS, f"{'; '.join(said)}.") if said else Check(what, REPRODUCED)


class _Missing(Exception):
    """A file that a check needs is not there, or not what it was."""


@dataclass
class _Version:
    """The fetched files of a version, and the checks of what they say.

    Attributes:
        record: of the version
        folder: where its files are
        whole: names of those that are what they were
    """

    record: VersionRecord
    folder: Path
    whole: set[str]

    def checks(self) -> Iterator[Check]:
        """Everything but the files themselves."""
        yield _guarded("hash of the weights", self._weights)
        yield _guarded("classes and their order", self._classes)
        yield _guarded("framing and image size", self._framing)
        yield _guarded("digest of the manifest", self._digest)
        yield _guarded("training images of each class", self._class_counts)
        yield _guarded("images that were measured", self._measured)
        yield _guarded("metrics", self._metrics)
        yield _guarded("figures of the card", self._card_figures)
        yield _guarded(CARD_TEXT, self._card_text)

    def _path(self, name: str) -> Path:
        if name not in self.record.files:
            raise _Missing(f"it was published without {name}")
        if name not in self.whole:
            raise _Missing(f"{name} is not what it was")
        return self.folder / name

    def _json(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self._path(name).read_text(encoding="utf-8")))

    @cached_property
    def _card(self) -> Card:
        return Card.model_validate_json(self._path("card.json").read_bytes())

    @cached_property
    def _rows(self) -> pa.Table:
        from ..lineage import manifest

        return manifest.read(self._path("manifest.parquet"))

    @cached_property
    def _used(self) -> pa.Table:
        return self._rows.filter(self._rows["used"])

    @cached_property
    def _predictions(self) -> pa.Table:
        """The rows of the predictions, each beside the row of the manifest that was used for it, in their order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = pq.read_table(self._path("predictions.parquet"))
        found = found.append_column("place", pa.array(range(found.num_rows), pa.int64()))
        sliced = [name for name in self._used.column_names if name.startswith(SLICE)]
        known = self._used.select([*KEY, "split", "label", *sliced])
        # Arrow cannot join a table that has lists, so the logits stay behind.
        beside = found.drop_columns("logits").join(known, KEY, join_type="left outer", right_suffix="_then")
        beside = beside.sort_by("place")
        return beside.append_column("logits", found["logits"].take(beside["place"]))

    def _said(self, of_model: str, of_card: Callable[[Card], Any]) -> dict[str, Any]:
        """What model.json and card.json say of one thing, as far as they are there and say it."""
        said = {}
        if "model.json" in self.whole:
            said["model.json"] = self._json("model.json").get(of_model)
        if "card.json" in self.whole:
            said["card.json"] = of_card(self._card)
        return {name: value for name, value in said.items() if value is not None}

    def _weights(self) -> list[str]:
        found = sha256(self._path("weights.pt"))
        said = self._said("weights_sha256", lambda card: card.weights_sha256)
        if not said:
            raise _Missing("no file of the version says it")
        return _unlike(found, said)

    def _classes(self) -> list[str]:
        from ..classifier.weights import load_names

        named = list(load_names(self._path("weights.pt")))
        return _unlike(named, {"the record": self.record.classes, **self._said("classes", lambda card: card.classes)})

    def _framing(self) -> list[str]:
        return [
            *_unlike(self.record.framing, self._said("framing", lambda card: card.framing)),
            *_unlike(self.record.imgsz, self._said("imgsz", lambda card: card.imgsz)),
        ]

    def _digest(self) -> list[str]:
        from ..lineage import manifest

        said = self._said("manifest_digest", lambda card: card.data.digest)
        return _unlike(manifest.digest(self._rows), {"the record": self.record.manifest_digest, **said})

    def _class_counts(self) -> list[str]:
        import pyarrow.compute as pc

        if not self.record.class_counts:
            raise _Missing("the record does not say them")
        learned = self._used.filter(pc.equal(self._used["split"], "train"))
        counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(learned["label"]).to_pylist()}
        found = {label: counts.get(label, 0) for label in (*self.record.class_counts, *counts)}
        return _differences(self.record.class_counts, found, "the record")

    def _measured(self) -> list[str]:
        """The predictions are of the images that the manifest keeps for measuring, each at most once."""
        import pyarrow.compute as pc

        found = self._predictions
        right = pc.and_(pc.equal(found["split"], found["split_then"]), pc.equal(found["label"], found["label_then"]))
        strange = found.num_rows - (pc.sum(right).as_py() or 0)
        twice = found.num_rows - found.group_by(KEY).aggregate([]).num_rows
        said = []
        if strange:
            said.append(f"{strange:,} are not those, or not labelled so, in the manifest")
        if twice:
            said.append(f"{twice:,} stand there more than once")
        return said

    @cached_property
    def _computed(self) -> dict[str, Any]:
        """The metrics as the stored predictions give them, by split, as `publishing` computed them."""
        import pyarrow.compute as pc

        from ..classifier import metrics, predict

        number = {label: i for i, label in enumerate(self.record.classes)}
        scores = {}
        for split in self._predictions["split"].unique().to_pylist():
            rows = self._predictions.filter(pc.equal(self._predictions["split"], split))
            logits = rows["logits"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
            truth = np.array([number.get(label, -1) for label in rows["label"].to_pylist()])
            slices = {n.removeprefix(SLICE): rows[n].to_pylist() for n in rows.column_names if n.startswith(SLICE)}
            probabilities = predict.softmax(logits.astype(np.float64))
            scores[split] = metrics.evaluate(truth, probabilities, self.record.classes, slices)
        return scores

    def _metrics(self) -> list[str]:
        stored, computed = self._json("metrics.json"), self._computed
        headlines = {split: _headline(score) for split, score in computed.items()}
        return [
            *_differences(stored, computed, "metrics.json"),
            *_differences(self.record.metrics, headlines, "the record"),
        ]

    def _card_figures(self) -> list[str]:
        from ..lineage import card

        stored, model = self._card, self._json("model.json")
        runtimes = {evaluation.split: evaluation.runtime for evaluation in stored.evaluation}
        computed = {split: {**score, "runtime": runtimes.get(split)} for split, score in self._computed.items()}
        made = card.build(model, computed, self._rows, card.Context()).evaluation
        one, other = ({e.split: e.model_dump() for e in evaluations} for evaluations in (stored.evaluation, made))
        return [*_unlike(self.record.name, {"card.json": stored.name}), *_differences(one, other, "card.json")]

    def _card_text(self) -> list[str]:
        from ..lineage import render

        text = self._path("card.md").read_text(encoding="utf-8")
        pictures = [name for name in self.record.files if name.startswith("plots/")]
        # Their order is no claim of the card's.
        pictures.sort(key=lambda name: (text.find(quote(name)), name))
        if render.markdown(self._card, [], pictures) == text:
            return []
        if (suite := self._card.training.suite) != __version__:
            raise _Missing(f"it was rendered by version {suite or 'unknown'} of the suite, and this is {__version__}")
        return ["card.md is not what card.json gives"]


def _guarded(what: str, work: Callable[[], list[str]]) -> Check:
    """A check from what differs; whatever keeps it from being made is said."""
    import pyarrow as pa

    try:
        differences = work()
    except _Missing as error:
        return Check(what, UNCHECKED, f"{error}.")
    except (SuiteError, ValueError, LookupError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        said = str(error).splitlines() or [type(error).__name__]
        return Check(what, UNCHECKED, f"A file of the version does not hold what it should: {said[0]}")
    return Check(what, DIFFERS, f"{_some(differences)}.") if differences else Check(what, REPRODUCED)


def _unlike(found: Any, said: Mapping[str, Any]) -> list[str]:
    """Which of the files or records say something else than what was found."""
    return [f"{name} says {_short(value)}, found {_short(found)}" for name, value in said.items() if value != found]


def _differences(stored: Any, computed: Any, path: str) -> list[str]:
    """Where two values of JSON differ, numbers by more than `TOLERANCE`."""
    if isinstance(stored, Mapping) and isinstance(computed, Mapping):
        keys = [key for key in (*stored, *sorted(set(computed) - set(stored))) if key not in NO_METRIC]
        return [
            difference
            for key in keys
            if key in stored or key not in LATER
            for difference in _differences(stored.get(key), computed.get(key), f"{path}: {key}")
        ]
    if isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        pairs = enumerate(zip(stored, computed, strict=True))
        return [text for i, (one, other) in pairs for text in _differences(one, other, f"{path}[{i}]")]
    if isinstance(stored, int | float) and isinstance(computed, int | float):
        same = abs(stored - computed) <= TOLERANCE
    else:
        same = stored == computed
    return [] if same else [f"{path} is {_short(stored)}, computed {_short(computed)}"]


def _headline(score: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in score.items() if not isinstance(value, list | dict)}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - NAMED:,} more" if len(texts) > NAMED else ""
    return "; ".join(texts[:NAMED]) + more
