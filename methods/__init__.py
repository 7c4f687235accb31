"""One file per method; `bench.base.registry` knows them by name."""
