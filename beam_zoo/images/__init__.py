"""From an image file to the pixels that an encoder takes: reading, decoding, views, one by one or in batches.

`kernels` has Pillow's resampling, compiled; `gpu` what only a GPU needs.

May import: `runtime` and below.
"""
