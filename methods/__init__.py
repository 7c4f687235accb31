"""One file per method; `bench.registry` knows them by name."""
