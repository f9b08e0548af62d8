"""The one place where the version of every Lablet package is written."""

__version__ = "0.1.0"
