"""A benchmark of gradient estimators for fine-tuning diffusion models on rewards."""

from bench.base import old_names

__version__ = "0.1.0"

old_names.install()
