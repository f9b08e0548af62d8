"""The soak: the mesh under a steady load for hours, and whether anything of it grows.

`load` asks, `sampling` looks every few seconds, `record` keeps what was seen as JSON lines, `trend` and `verdict` judge it
(pure), `report` draws it.
"""
