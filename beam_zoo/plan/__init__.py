"""The plan of a run: what is predicted, cut into snippets, and stored with the output before anything is predicted.

May import: `members`, `catalogue` and below.
"""
