"""Models on images: predictions, and what becomes of them. A thin layer over `shared/`."""

from .accept_predictions import AcceptPredictions
from .apply_model import ApplyModel
from .evaluate_predictions import EvaluatePredictions

OPERATORS = (ApplyModel, AcceptPredictions, EvaluatePredictions)
