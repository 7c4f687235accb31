"""Diffusion models as chains: loading, text, solvers, noise levels, LoRA, sizes; `embedded/` holds the small
models that ship with the program.

Imports: engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
