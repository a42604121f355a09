"""A run on disk: whose `folder` it is, its `checkpoint`s, and its `log`."""
