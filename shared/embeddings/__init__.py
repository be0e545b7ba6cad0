"""Vectors of ROIs: backbones that make them, maps and clusters that show them; plain arrays, no FiftyOne."""
