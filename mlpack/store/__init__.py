"""Published artifacts: immutable versions, tags, verification, removal."""
