"""From YAML text to what is declared: document, schema, check, resolve. Pure."""
