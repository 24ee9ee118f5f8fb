"""Pillow's bilinear resampling, compiled for this processor, with the same bits.

May import: `beam_zoo.runtime`.
"""
