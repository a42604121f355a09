"""Pretrained weights that metrics and losses need, in one folder on this machine."""

from vqjax.weights.cache import available, load, provenance
from vqjax.weights.fetching import fetch
from vqjax.weights.sources import group_of

__all__ = ['available', 'fetch', 'group_of', 'load', 'provenance']
