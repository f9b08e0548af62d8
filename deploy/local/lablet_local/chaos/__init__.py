"""Fault runs: the local mesh under load while a seeded schedule kills, pauses, cuts off and starves its parts, and a checker
that shares no code with the product reads afterwards what clients saw, etcd's history, the event stream and the simulators'
own logs.

`schedule` plans (pure), `network` stands between the processes, `faults` carries a plan out, `load` asks for things all the
time, `chronicle` writes down what etcd commits, `checks` judges, `run` is one seed from start to verdict.
"""
