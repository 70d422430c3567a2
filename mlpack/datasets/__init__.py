"""Labelled data in the forms users have it in, streamed as named batches."""
