"""Docker, where its daemon answers."""

from mlpack.containers.engine import Engine

ENGINE = Engine(
    name="docker",
    # The client alone is often installed: only the daemon knows a server's version.
    probe=("version", "--format", "{{.Server.Version}}"),
    build_words=("build",),
    digest_words=("image", "inspect", "--format", "{{.Id}}"),
    run_words=("run",),
)
