"""Lablet: keeps definitions, lab files and collected work."""
