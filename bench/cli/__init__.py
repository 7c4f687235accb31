"""The command line: parse, call, print. One module for each group of commands; `doctor/` looks at the
machine.

Imports: report, measure, run, experiment, models, engine, data, base.
"""
