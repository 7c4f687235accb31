"""What every cell imports: the server of warm starts imports this module (`bench.run.warm`)."""

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # as in bench.cli.main

import torch._dynamo  # the first optimizer imports it  # noqa: F401

import bench.models.image
import bench.run.cell  # noqa: F401
