"""What `make gpu-check` looks at, a module for each kind of check."""
