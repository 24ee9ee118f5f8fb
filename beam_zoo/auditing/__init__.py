"""The audit of a finished output: whether plan, stored samples, tables and manifest agree.

The work is cut into elements (`elements.py`): a table part with the stored parts that it was made of, or the
files of a plan. Each element is checked by itself (`run.py`, `aggregate.py`). What comes out are lines about
what is wrong (`findings.py`) and counts.

The expected tables are computed from the stored samples (`expected.py`) and compared with the files
(`table_files.py`). They follow the definitions, by NumPy and SciPy alone. Only the interval bounds of
decision trees, which are slow to compute by definition, come from `tables` for most galaxies.

May import: everything else but the public face.
"""
