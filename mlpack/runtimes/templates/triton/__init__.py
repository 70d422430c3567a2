"""The Triton package: the template of its configuration and the model of its Python backend."""
