"""The program as functions: what `import bench` offers to notebooks and scripts, and what the commands of the
same names call.

Imports: protocol, report, measure, run, experiment, models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
