"""Plan, run, cache, explain and search: knows stages by their doors, never by their names."""
