"""What operators do, one job a module, shared with those that do several: from a dataset to a dataset."""
