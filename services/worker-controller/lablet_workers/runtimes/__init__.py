"""What runs labs on a machine: one port, the CML adapter, and a fake for tests."""
