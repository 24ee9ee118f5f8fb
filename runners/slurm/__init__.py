"""Slurm: submitting a prediction as a batch job, and what runs inside its allocation."""
