"""The members of the ensemble: their YAML files, schemas and checkpoints, local or from the Hugging Face hub.

May import: `images` and below; not `catalogue`.
"""
