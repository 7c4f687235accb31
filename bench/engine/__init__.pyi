from .adjoint_matching import Matching
from .batch import Batch, Improved, NoiseGradient, Perturbation, Report, Start, Term
from .chain import Chain, Condition, Level, MakesVideos, State, Transition
from .control_variate import Control
from .engine import Engine
from .method import InferenceMethod, Method
from .plan import UNIT_WEIGHTS, Kind, Plan, Segment, tiled
from .plan_method import Estimator, PlanMethod, last_steps
from .regression import Prediction, Regression
from .reward import Media, Reward

__all__ = [
    "UNIT_WEIGHTS",
    "Batch",
    "Chain",
    "Condition",
    "Control",
    "Engine",
    "Estimator",
    "Improved",
    "InferenceMethod",
    "Kind",
    "Level",
    "MakesVideos",
    "Matching",
    "Media",
    "Method",
    "NoiseGradient",
    "Perturbation",
    "Plan",
    "PlanMethod",
    "Prediction",
    "Regression",
    "Report",
    "Reward",
    "Segment",
    "Start",
    "State",
    "Term",
    "Transition",
    "last_steps",
    "tiled",
]
