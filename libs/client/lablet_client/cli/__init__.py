"""The `lablet` command: what people type, and what they read."""
