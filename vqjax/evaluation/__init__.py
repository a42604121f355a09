"""The numbers of a tokenizer.

`table` has a row for every number. `run` evaluates a run, or two folders of images: `step` finds
the numbers of a batch, by `metrics` of pixels and `scoring` by networks; `collect` goes over the
batches, and `totals` and `statistics` add them up. `baselines` measures what `codecs` and k-means
on `patches` make of the same images. `results` is what was found, with a `cloud` of latents;
`saved` is what an earlier evaluation left on disk.
"""
