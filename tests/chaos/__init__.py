"""The real service under load while parts of it fail: a few seconds per fault in CI, a minute in the full campaign."""
