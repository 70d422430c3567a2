"""Training: a module learns from rows, in steps that a kill does not lose; used by the stages that change weights."""
