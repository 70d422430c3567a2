"""What was found, written for others to read: HTML and Markdown for people, JUnit for CI, code-host annotations."""
