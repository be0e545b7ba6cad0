"""Where a person should look: what a model gets wrong, which labels look wrong, what to review next."""
