"""Writes artifact.schema.json, the published JSON Schema of artifact.json, beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlpack.core.artifact import Artifact

FILE = Path(__file__).with_name("artifact.schema.json")


def schema() -> dict[str, Any]:
    """The schema, as generated from the typed record."""
    generated = Artifact.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


if __name__ == "__main__":
    FILE.write_text(json.dumps(schema(), indent=2) + "\n")
