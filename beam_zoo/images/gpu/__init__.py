"""What only a GPU needs: its own JPEG decoder.

May import: `beam_zoo.images` and below.
"""
