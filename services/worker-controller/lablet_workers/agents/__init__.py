"""The mesh's side of agents: their leases, the line on which they are asked, and how they join a pool."""
