"""A worker's life with its machine: one step per phase, from Offline to Ready and back."""
