"""Files and folders: local ones, objects of Google Cloud Storage, YAML, and the names in an output's folder.

May import: `errors` only.
"""
