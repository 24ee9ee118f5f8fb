"""The tables: statistics of an ensemble's samples, their columns, and the steps that write them.

May import: `samples` and below; not `inference`.
"""
