"""The parts of the HTML report: what each section says and shows, as plain data for its template."""
