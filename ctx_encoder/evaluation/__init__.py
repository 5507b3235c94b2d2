"""One engine that measures systems on images and holes, and the tables of its results.

A system completes images: `(images, masks) -> completed images`. Training, baselines
and commands all measure through `compare`, and print through `table`.
"""
