"""What else is measured: bias and variance of gradients (`gradients/`), memory and time (`cost/`), and the
scores of VBench (`vbench/`).

Imports: run, experiment, models, engine, data, base.
"""
