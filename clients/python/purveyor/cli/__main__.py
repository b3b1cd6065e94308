"""`python -m purveyor.cli`: the command, where its script is not on the path."""

from __future__ import annotations

from purveyor.cli import main

main()
