"""Dataflow: the settings of its workers, what is checked before a job costs money, and the workers' images."""
