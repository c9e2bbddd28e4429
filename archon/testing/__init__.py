"""Conformance suites and stand-ins, for the tests of anyone who extends Archon."""
