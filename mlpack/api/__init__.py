"""One documented function per command."""
