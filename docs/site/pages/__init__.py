"""Pages of the reference that the code writes; `make reference` puts them into docs/reference."""
