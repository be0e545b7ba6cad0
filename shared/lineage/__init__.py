"""Where a model comes from: manifests, the registry of versions, plots."""
