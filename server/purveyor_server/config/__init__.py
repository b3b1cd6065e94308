"""Settings and the catalog file: parsed and judged here as a whole, before anything starts."""

from importlib.resources import files


def dev_catalog() -> bytes:
    """The text of the catalog that `purveyor serve --dev` serves."""
    return files(__name__).joinpath("dev_catalog.yaml").read_bytes()
