"""The operators of this plugin; each is in a file of its own."""

from .compare_models import CompareModels
from .model_lineage import ModelLineage
from .show_runs import ShowRuns
from .show_training_data import ShowTrainingData
from .verify_version import VerifyVersion
from .write_card import WriteCard

OPERATORS = (CompareModels, ModelLineage, ShowRuns, ShowTrainingData, VerifyVersion, WriteCard)
