"""Scripts around the program: measurements, what the docs need, the making of the embedded models."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # looked at when tqdm is imported, by torch for instance
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
