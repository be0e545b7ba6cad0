"""Models on images: predictions, and what becomes of them. A thin layer over `shared/`."""

from .accept_predictions import AcceptPredictions
from .apply_model import ApplyModel

OPERATORS = (ApplyModel, AcceptPredictions)
