"""Lablet: the whole mesh on one machine, with a simulated cloud."""
