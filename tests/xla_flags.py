"""Which fusion XLA can be asked for: an unknown flag ends the process."""

import importlib.metadata

# jaxlib 0.12 has its emitters alone. Python 3.11 gets 0.10, which has the older way too.
FUSION_IS_A_CHOICE = tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2])) < (0, 12)
