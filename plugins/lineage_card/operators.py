"""The operators of this plugin; each is in a file of its own."""

from .show_training_data import ShowTrainingData

OPERATORS = (ShowTrainingData,)
