"""Podman, which needs no daemon."""

from mlpack.containers.engine import Engine

ENGINE = Engine(
    name="podman",
    probe=("info", "--format", "{{.Version.Version}}"),
    # OCI's own format has no health check.
    build_words=("build", "--format", "docker"),
    digest_words=("image", "inspect", "--format", "{{.Id}}"),
    # Its health checks are systemd's timers, which not every machine has.
    run_words=("run", "--no-healthcheck"),
)
