"""The JPEG decoder of NVIDIA GPUs.

May import: `beam_zoo.images` and below.
"""
