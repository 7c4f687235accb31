"""A benchmark of gradient estimators for fine-tuning diffusion models on rewards."""

__version__ = "0.1.0"
