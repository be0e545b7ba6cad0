"""The suite's saved workspaces: the App's panels laid out for one task, chosen at the top right.

A workspace is made where the dataset has none of that name, and never again: which panels are open, and how large, is a
person's own business from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import fiftyone.core.utils as fou
from fiftyone.operators.registry import OperatorRegistry

MAP, REVIEW, TRAIN = "embeddings map", "Review", "Train"
EVALUATION = "model_evaluation_panel_builtin"  # FiftyOne's name of the panel Model Evaluation
LINEAGE = "@mbari/lineage_card/model_lineage"
# The panels beside the grid, as tabs of which the first is on top; and what the App's list says of the workspace.
_BESIDE: dict[str, tuple[Sequence[str], str]] = {
    MAP: (["Embeddings"], "Made by the suite: the grid beside the Embeddings panel"),
    REVIEW: (
        [EVALUATION, "Embeddings"],
        "Made by the suite: the grid beside Model Evaluation, and the embeddings map behind it",
    ),
    TRAIN: (
        [LINEAGE, "Histograms"],
        "Made by the suite: the grid beside the model versions, and histograms of any field behind them",
    ),
}


def save(dataset: fo.Dataset, name: str) -> bool:
    """Saves the suite's workspace of this name, where the dataset has none of that name.

    Args:
        dataset: the dataset
        name: `MAP`, `REVIEW` or `TRAIN`

    Returns:
        whether the name stands for ours now
    """
    kinds, said = _BESIDE[name]
    dataset.reload()
    if not any(fou.to_slug(other) == fou.to_slug(name) for other in dataset.list_workspaces()):
        dataset.save_workspace(name, _laid_out(kinds), description=said)
    return dataset.has_workspace(name) and dataset.get_workspace_info(name)["description"] == said


def _laid_out(kinds: Sequence[str]) -> fo.Space:
    """The grid, and panels at its right; one whose plugin is not installed is left out."""
    beside = _space([fo.Panel(type=kind.rpartition("/")[2]) for kind in kinds if _installed(kind)])
    grid = _space([fo.Panel(type="Samples", pinned=True)])
    # The App hides buttons above a narrow grid.
    return fo.Space(children=[grid, beside], orientation="horizontal", sizes=[0.6, 0.4])


def _space(panels: list[fo.Panel]) -> fo.Space:
    # The App draws nothing in a space that does not say which of its panels is on top.
    return fo.Space(children=panels, active_child=panels[0].component_id)


def _installed(kind: str) -> bool:
    return not kind.startswith("@") or bool(OperatorRegistry().operator_exists(kind))
