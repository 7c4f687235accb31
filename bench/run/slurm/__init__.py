"""Sweeps on SLURM through submitit: profiles, submission, what a job does, and what became of it."""
