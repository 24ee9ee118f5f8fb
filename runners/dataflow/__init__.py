"""Dataflow: presets of its workers, checks before a job costs money, and the workers' images."""
