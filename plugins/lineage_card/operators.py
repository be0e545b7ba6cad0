"""The operators of this plugin; each is in a file of its own."""

from .compare_models import CompareModels
from .iterate_model import IterateModel
from .model_lineage import ModelLineage
from .promote_model import PromoteModel
from .promote_to_production import PromoteToProduction
from .rollback_alias import RollbackAlias
from .show_runs import ShowRuns
from .show_training_data import ShowTrainingData
from .verify_version import VerifyVersion
from .write_card import WriteCard

OPERATORS = (
    CompareModels,
    IterateModel,
    ModelLineage,
    PromoteModel,
    PromoteToProduction,
    RollbackAlias,
    ShowRuns,
    ShowTrainingData,
    VerifyVersion,
    WriteCard,
)
