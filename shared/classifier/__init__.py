"""Image classifiers: training data, training, weights, prediction, metrics."""
