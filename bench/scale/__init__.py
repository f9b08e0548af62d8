"""How far one mesh goes: what more replicas give, and what more labs cost."""
