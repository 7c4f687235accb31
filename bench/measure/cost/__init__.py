"""What a method costs: memory, measured or simulated without weights, network evaluations and operations."""
