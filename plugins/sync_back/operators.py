"""Corrections and the label store: a thin layer over `shared/sync/`."""

from .add_label import AddLabel
from .apply_corrections import ApplyCorrections
from .correct_labels import CorrectLabels
from .export_history import ExportHistory
from .preview_sync import PreviewSync
from .pull_labels import PullLabels
from .revert_sync import RevertSync
from .sync_back import SyncBack

OPERATORS = (
    CorrectLabels,
    ApplyCorrections,
    PreviewSync,
    SyncBack,
    PullLabels,
    RevertSync,
    AddLabel,
    ExportHistory,
)
