"""Diffusion models as chains: loading, text, solvers, noise levels, LoRA, sizes; `embedded/` holds the small
models that ship with the program.

Imports: engine, data, base.
"""

import lazy_loader

from bench.base.callable_rooms import also_function

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
also_function(__name__)  # `bench.models(...)` of the Python API
