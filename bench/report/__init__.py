"""Tables, statistics, figures and the HTML page, from a results directory alone.

Imports: measure, run, experiment, models, engine, data, base.
"""

import lazy_loader

from bench.base.callable_rooms import also_function

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
also_function(__name__)  # `bench.report(...)` of the Python API
