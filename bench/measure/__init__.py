"""What else is measured: bias and variance of gradients (`gradients/`), memory and time (`cost/`), and the
scores of VBench (`vbench/`).

Imports: run, experiment, models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
