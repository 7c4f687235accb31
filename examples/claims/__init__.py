"""The paper's mathematical statements, one script each: `python -m examples.claims`."""
