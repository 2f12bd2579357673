"""The tests: a package, so that `python -m tests.chaos` finds its way to the support modules."""
