"""The plan of a run: what is to be predicted, split into snippets, and stored before the first prediction.

May import: `members`, `catalogue` and below.
"""
