"""The routes, one module per noun. A route reads what was sent, asks a domain module, and says the outcome."""
