"""The package that does the work of the MBARI FiftyOne plugin suite."""

__version__ = "0.1.0"
