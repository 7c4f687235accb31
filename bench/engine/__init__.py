"""The mathematics: what a chain, a plan, a reward and a method are, and the one engine that runs plans and
leaves the gradient in `.grad`. It knows nothing of diffusion models, files or processes.

Imports: base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
