"""From image files to the encoders' input: reading, decoding and views, one by one or in batches.

`kernels` has compiled versions of Pillow's resampling, `gpu` the JPEG decoder of a GPU.

May import: `runtime` and below.
"""
