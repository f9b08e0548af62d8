"""Where machines come from: one port, an adapter per cloud, and a fake for tests."""
