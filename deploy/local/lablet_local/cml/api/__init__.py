"""The routes of the simulated API, one room per area; `register` in each adds its handlers to the table."""
