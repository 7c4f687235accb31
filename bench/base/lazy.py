"""torch and psutil, imported when they are used: `from bench.base.lazy import torch` for `import torch`.

Importing torch takes seconds, and `describe` and `run --dry-run` want of a method or a reward its settings
alone. So their files, and what these import, take torch from here; all others import it as usual.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Lazy(ModuleType):
    """Stands for the module of its name, which is imported when one of its attributes is asked for.

    `lazy_loader.load` would put what it returns into `sys.modules`, where the next `import torch` of anybody
    loads it, and so does `inspect`, which looks at every module that is there.
    """

    def __getattr__(self, name: str) -> Any:
        """The attribute of the module itself; it is asked for once."""
        found = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, found)
        return found


if TYPE_CHECKING:
    import psutil
    import torch
else:
    psutil, torch = Lazy("psutil"), Lazy("torch")
