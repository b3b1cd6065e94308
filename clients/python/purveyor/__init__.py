"""The Purveyor client library."""
