"""What a user hands in, recognised by content, written as a Model folder."""
