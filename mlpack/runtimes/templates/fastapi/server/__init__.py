"""Serves one model over HTTP in the V2 inference protocol. Start it with `python -m server`."""
