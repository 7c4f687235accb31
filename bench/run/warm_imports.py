"""What every cell imports: the server of warm starts imports this module (`bench.run.warm`)."""

import gc
import os

os.setsid()  # a signal to all processes of a group, as `timeout` sends it, is for the launcher to pass on
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # as in bench.base.console
os.environ.setdefault("TQDM_DISABLE", "1")  # as in `bench cell`; it is looked at when tqdm is imported


def _import() -> None:
    gc.disable()
    import torch._dynamo  # the first optimizer imports it  # noqa: F401

    import bench.models.image
    import bench.run.cell  # noqa: F401

    gc.collect()
    gc.freeze()  # looking through all this for garbage would take every copy half a second
    gc.enable()


_import()
