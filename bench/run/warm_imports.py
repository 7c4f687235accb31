"""What every cell imports: the server of warm starts imports this module (`bench.run.warm`)."""

import torch._dynamo  # the first optimizer needs it  # noqa: F401

import bench.models.image
import bench.run.cell  # noqa: F401
