"""What pruning a module takes: which widths hang together, what each unit is worth, what goes, masks, whole layers."""
