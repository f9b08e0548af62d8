"""One simulated Cisco Modeling Labs 2.9 controller: the real HTTP API on a loopback address, without hypervisor.

The problem: workers must be tried by the dozen on one machine, by the same adapter that talks to a real controller,
and what ran when must be provable afterwards. So a process of this package speaks the API, opens a console per node on
the ports that the lab's tags name, can be told to misbehave (`/sim/faults`) and keeps an append-only witness log
(`/sim/state`). Start one with ``python -m lablet_local.cml --host 127.0.3.5 --port 8080``.

What it does not do: no packet is forwarded between nodes, `ssh` consoles speak plain text, labs are forgotten when the
process ends (only the witness log stays). The parts of the API that answer 501 are listed in `api.unsupported`.
"""
