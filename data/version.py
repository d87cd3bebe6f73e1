"""The version of the package, as pyproject.toml has it too; every run's header records it."""

__version__ = "0.1.0"
