"""One file per method; `bench.base.registry` finds them by name.

Imports: engine, base.
"""
