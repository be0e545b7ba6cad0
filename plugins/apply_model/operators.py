"""Models on images: predictions, and what becomes of them. A thin layer over `shared/`."""

from .accept_predictions import AcceptPredictions
from .apply_model import ApplyModel
from .evaluate_predictions import EvaluatePredictions
from .mark_reviewed import MarkReviewed
from .select_for_review import SelectForReview

OPERATORS = (ApplyModel, AcceptPredictions, EvaluatePredictions, SelectForReview, MarkReviewed)
