"""From cells to results: the results directory, claims and locks, processes, the training and evaluation of
one cell, and sweeps on SLURM (`slurm/`).

Imports: experiment, models, engine, data, base.

The room's words:

- cell: a model to be trained by one method with one reward, prompt set and seed, or a base model to be
  evaluated; its directory is `cells/<id>`.
- work: what one process is started for: a cell, or something that a room above adds (a gradient profile, a
  part of VBench's videos). Everything about it is in its directory: settings, status, lock, claim.
- process: an operating system's process that does one piece of work. With `--processes`, several share it.
- launch: to start processes on this machine, some at a time, and to wait for them.
- job: SLURM's: a place in its queue, in which the processes of one piece of work run. A task is one of an
  array of jobs.
- claim: whose turn the work is, from planning to its end. lock: which process writes in its directory now.
"""

import lazy_loader

from bench.base.callable_rooms import also_function

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
also_function(__name__)  # `bench.run(...)` of the Python API
