"""What every other room may use, explained once: errors, strict settings, layered YAML, files that are whole
or not there, units, tables and drawings in one style, and which plugins there are.

Imports: none.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
