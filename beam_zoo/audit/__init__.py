"""The audit of a finished output: whether plan, stored samples, tables and manifest agree.

The work is cut into elements (`elements.py`): a table part with the stored parts that it was made of, or the rows of
a plan. Each element is checked by itself (`run.py`, `aggregate.py`). What comes out are lines about what is wrong
(`findings.py`) and counts.

The expected tables are computed from the stored samples (`expected.py`) and compared with the files
(`table_files.py`). They come from the definitions, by NumPy and SciPy alone; only the interval bounds of decision
trees, which are slow to compute by definition, come from `beam_zoo.tables` but for some galaxies of each table part.

The audit may import all other packages of `beam_zoo`, and none of them imports it.
"""
