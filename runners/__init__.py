"""The engines that run a pipeline, and Slurm.

`direct`, `flink` and `dataflow` are engines, which know nothing of the commands. `slurm` is a command: it
plans a run and submits it as a batch job. Modules of an engine import from `beam_zoo` and from the modules
beside them only.
"""
