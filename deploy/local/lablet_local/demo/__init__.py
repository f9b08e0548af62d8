"""`lablet demo`: a believable morning on the real mesh, checked to the last seat.

`scenario` is the morning as data, `run` lives it, `record` and `evidence` gather what three independent sources saw,
`history` reads it, `verify` judges it, `live`, `chart` and `report` show it.
"""
