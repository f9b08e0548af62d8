"""Lablet: provisions workers and runs the labs on them."""
