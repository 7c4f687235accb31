"""Rewards, one per file. `bench.registry` finds them by name; docs/rewards.md compares them."""
