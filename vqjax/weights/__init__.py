"""Pretrained weights that metrics and losses need, in one folder on this machine."""

from vqjax.weights.cache import available, load, provenance
from vqjax.weights.fetching import fetch

__all__ = ['available', 'fetch', 'load', 'provenance']
