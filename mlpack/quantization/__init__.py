"""The numerics that stages share: rules by target, coverage of the compute."""
