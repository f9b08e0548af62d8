"""`lablet agent`: any Linux host as a worker. It joins with a token, keeps a lease, and runs approved labs as processes.

The modules from `plan` to `supervisor` are the process driver's inside: they use the standard library alone, because one
small process of theirs lives beside every lab.
"""
