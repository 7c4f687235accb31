"""Tables, statistics, figures and the HTML page, from a results directory alone.

Imports: measure, run, experiment, models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
