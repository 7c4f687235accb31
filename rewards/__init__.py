"""Rewards, one per file. `bench.base.registry` finds them by name; docs/rewards.md compares them."""
