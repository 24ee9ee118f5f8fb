"""The steps from snippets to outputs of the members: load images, and the ModelHandler of a checkpoint.

May import: `samples` and below.
"""
