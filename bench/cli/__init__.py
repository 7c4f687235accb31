"""The command line: parse, call, print. One module for each group of commands; `doctor/` looks at the
machine.

Imports: api, protocol, report, measure, run, experiment, models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
