"""The documentation: pages, the records behind the JSON schemas, and what writes generated pages."""
