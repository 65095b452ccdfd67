"""The HTTP interface: routes, schemas, uploads, admission, keys, problems, metrics and tracing."""
