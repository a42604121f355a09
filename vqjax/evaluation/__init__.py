"""The numbers of a tokenizer.

`table` has a row for every number; `metrics` and `scoring` compute those of images, `totals` adds
up batches, `statistics` are of whole sets; `run` evaluates a run, or two folders of images;
`step` is of one batch, `cloud` of latents; `results` is what was found, and `saved` what an
earlier evaluation left on disk.
"""
