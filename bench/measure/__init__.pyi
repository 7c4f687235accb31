from .cost.simulate import Simulator
from .gradients.probe import GradientProfile, profile
from .vbench.score_request import ScoreRequest
from .vbench.videos_request import VideosRequest

__all__ = ["GradientProfile", "ScoreRequest", "Simulator", "VideosRequest", "profile"]
