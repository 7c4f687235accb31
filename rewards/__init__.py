"""One file per reward; `bench.base.registry` finds them by name, docs/rewards.md compares them.

Imports: engine, data, models, base.
"""
