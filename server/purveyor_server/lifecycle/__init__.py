"""The one door of every use-case: rules first, then one store command."""
