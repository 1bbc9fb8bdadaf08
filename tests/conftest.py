"""What all tests share: laws that were not shown are listed in the report."""

pytest_plugins = ["catga.testing.report"]
