"""Samples: what travels between the steps, immutable parts, and the union of a galaxy's samples.

May import: `plan` and below.
"""
