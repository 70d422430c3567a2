"""Files that packages are made of: Jinja templates (*.j2), and Python modules that are copied verbatim."""
