"""Image classifiers: training data, training, weights, runtimes, prediction, metrics."""
