"""The same reservations on other reservers. Each side is a module; what they are given is in `workload`."""
