"""Stage two: transformers over the tokens of a tokenizer, and the samplers that draw from them.

`layout` says how the tokens of an image are one sequence, `blocks` what all networks are built of,
`contracts` what a sampler and a training asks of a network. Networks and samplers are plain linen
modules and functions: training them is `vqjax.training`, their files are `vqjax.convert`.
"""
