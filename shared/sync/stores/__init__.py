"""Label stores: the databases of record that corrections are sent to, each behind the interface of `base.py`."""
