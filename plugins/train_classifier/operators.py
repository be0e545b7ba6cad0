"""Splits, training, stopping, and the check of the set-up: a thin layer over `shared/`."""

from .assign_splits import AssignSplits
from .check_setup import CheckSetup
from .stop_run import StopRun
from .train_classifier import TrainClassifier

OPERATORS = (AssignSplits, TrainClassifier, StopRun, CheckSetup)
