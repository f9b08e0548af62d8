"""A lab's life on its worker: one step per phase, from Pending to Terminated."""
