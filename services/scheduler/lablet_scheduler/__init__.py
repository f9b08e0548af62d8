"""Lablet: turns reservations into placement decisions."""
