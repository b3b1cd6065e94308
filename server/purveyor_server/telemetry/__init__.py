"""Logs and the redaction of secrets."""
