"""Scripts around the program: measurements, what the docs need, the making of the embedded models."""
