"""`python -m bench doctor`: what this machine has, what is missing, and what to type about it."""
