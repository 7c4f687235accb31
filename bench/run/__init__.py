"""From cells to results: the results directory, claims and locks, processes, the training and evaluation of
one cell, and sweeps on SLURM (`slurm/`).

Imports: experiment, models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
