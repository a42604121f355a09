"""A config made concrete and trained, from the field names of a config to one optimizer step.

`recipe` makes networks, `losses` and an `optimizer` of a config, with `durations` in any unit;
`objective` says what is minimised, and `step` does one step on a `state`, which starts anew or by
`warm_start`. `experiment` is what train.py asks for all of this, `tokenizer_experiment` its answer;
`window` adds up what steps report.
"""
