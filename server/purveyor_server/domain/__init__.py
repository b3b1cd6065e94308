"""Pure values and rules: state machines, conflict matrix, catalog, digests, errors. No I/O."""
