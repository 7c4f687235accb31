"""The files that models, rewards and prompt sets need: which they are, where they are found and how they come
here; and the prompt sets themselves (`prompts/`).

Imports: base.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
