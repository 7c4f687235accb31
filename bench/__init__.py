"""A benchmark of gradient estimators for fine-tuning diffusion models on rewards.

    import bench
    results = bench.run(methods=["rlr", "full_bp"], steps=20)
    results.summary

docs/python.md explains these functions. They are loaded on first use: `import bench` costs nothing.
"""

import lazy_loader

from bench.base import old_names

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

old_names.install()
