"""Lablet: typed Python SDK and the lablet command."""
