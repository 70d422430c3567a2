"""The words that the whole house is built from (see the README's glossary)."""
