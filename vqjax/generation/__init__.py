"""Stage two: transformers over the tokens of a tokenizer, and the samplers that draw from them.

`layout` says how the tokens of an image are one sequence, `blocks` and `caches` what networks are
built of, `contracts` what a sampler and a training asks of one. Causal networks are `llamagen` and
`rar`, drawn from by `causal_sampler` through `filters`; masked ones `halton_maskgit` and `maskgit`,
by `masked_samplers`, which share `masked_steps` and the `orders` of their reveals; `guidance` is of
both. `objectives` are what training minimises, `masking` what it hides, and `build` makes all of
that of a config. They are plain linen modules and functions: training them is `vqjax.training`,
their files are `vqjax.convert`.
"""
