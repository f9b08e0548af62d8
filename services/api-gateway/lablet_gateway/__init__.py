"""Lablet: HTTP API, event streams and console."""
