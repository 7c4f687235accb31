"""From what a user asks for to cells: settings, combinations of models, rewards and methods, their resolution
to full settings, and the id that follows from these.

Imports: models, engine, data, base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
