"""Work that takes several packages: train and publish, apply, embed, compare, verify, promote. Knows no FiftyOne."""
