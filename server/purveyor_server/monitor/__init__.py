"""The operators' HTTP face: metrics and two questions that a supervisor asks. No rule of the business lives here."""
