"""Sealing of credentials and secret outputs at rest."""
