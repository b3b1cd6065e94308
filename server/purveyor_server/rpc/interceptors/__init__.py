"""What happens around every call: context and log line, error boundary, drain, limits, deadline, checks of the message."""
