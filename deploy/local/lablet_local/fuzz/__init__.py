"""Hostile input: every reader of strangers' bytes is given what strangers may send (see docs/reliability/hostile-input.md).

`mutate` makes cases from a seed, `targets` names the readers and the refusals that they promise, `run` gives the one to the
other and holds each case to its limits.
"""
