"""The simulated cloud: machines by HTTP, each a CML simulator process on a loopback address of its own.

The problem: power, capacity and loss of machines must be tried without an account at a cloud. So a small API launches,
stops and terminates machines with the manners of a real one: idempotent launches, states that take their time (in lab
minutes), shortage, boots that fail, machines that vanish. What ran where is told by `GET /witness`, also of machines
that have ended.

What it does not do: no network, no images, no disks. A stopped machine keeps its address and its witness log and
nothing else.
"""
