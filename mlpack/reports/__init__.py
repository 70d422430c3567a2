"""What was found, written for others to read: JUnit for CI, Markdown for people, annotations for a code host."""
