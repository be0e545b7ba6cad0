"""The operators of this plugin; each is in a file of its own."""

from .compare_models import CompareModels
from .show_training_data import ShowTrainingData
from .write_card import WriteCard

OPERATORS = (CompareModels, ShowTrainingData, WriteCard)
