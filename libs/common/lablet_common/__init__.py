"""Lablet: resources, events and the parts that every service shares."""
