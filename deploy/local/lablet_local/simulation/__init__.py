"""The scheduler, the worker-controller and the artifact-service on twins, in a world where a seed decides what happens,
in which order, and what goes wrong. A processor lives through hundreds of small ones a minute, and each can be lived again.

`world` is what there is, `processes` the services in it, `story` what people and fate do, `trial` one seed from its first
moment to the verdict. The checks are those of the fault runs: they read the store's history and the machines' own logs,
and share no rule with the services.
"""
