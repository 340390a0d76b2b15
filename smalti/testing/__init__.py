"""The conformance suites: what every kind and every family must hold to, for whoever brings one from outside.

`check_kind` and `check_family` need no test framework: they return a `Report`, or raise an AssertionError that names
what failed and what that usually means.
"""

from smalti.testing.families import check_family
from smalti.testing.kinds import check_kind
from smalti.testing.report import Report

__all__ = ["Report", "check_family", "check_kind"]
