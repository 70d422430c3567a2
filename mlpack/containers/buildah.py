"""Buildah, which builds and cannot run."""

from mlpack.containers.engine import Engine

ENGINE = Engine(
    name="buildah",
    probe=("info",),
    # OCI's own format has no health check.
    build_words=("build", "--format", "docker"),
    digest_words=("inspect", "--type", "image", "--format", "{{.FromImageID}}"),
    run_words=None,
)
