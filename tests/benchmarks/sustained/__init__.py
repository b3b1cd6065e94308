"""A long run at a share of the capacity, then three times as much: see `__main__.py`."""
