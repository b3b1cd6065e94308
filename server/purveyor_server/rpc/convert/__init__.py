"""Between the messages of `purveyor.v1` and the values of the domain; nothing here decides anything."""
