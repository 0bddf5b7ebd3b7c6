"""A program that does not import."""

import a_module_that_nobody_has_installed  # noqa: F401

app = None
