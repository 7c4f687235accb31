"""The fair fight: workloads, tuning with equal effort, and what is made of both.

Imports: report, run, experiment, models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
