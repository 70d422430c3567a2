"""The FastAPI package: its server is the Python package `server`."""
