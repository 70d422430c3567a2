"""The TorchServe package: its handler, which runs inside a model archive."""
