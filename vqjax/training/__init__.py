"""A config made concrete and trained, from the field names of a config to one optimizer step.

`recipe` makes networks, losses and optimizers of a config; `objective` says what is minimised;
`step` does one step on a `state`; `experiment` is what train.py asks for all of this.
"""
