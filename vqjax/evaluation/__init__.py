"""The numbers of a tokenizer, and those of generated images.

`table` has a row for every number. `run` evaluates a run, or two folders of images: `step` finds
the numbers of a batch, by `metrics` of pixels and `scoring` by networks; `collect` goes over the
batches, and `totals` and `statistics` add them up. `baselines` measures what `codecs` and k-means
on `patches` make of the same images. `samples` evaluates images that a generator made, which
`makers` gets from files or from a run, against `references`: `adm` has the numbers,
`precision_recall` those of neighbours, and `nearest` finds the images that they might be copies of.
`results` is what was found, with a `cloud` of latents; `saved` is what an earlier evaluation left
on disk.
"""
