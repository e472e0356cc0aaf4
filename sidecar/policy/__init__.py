"""Decisions: pure functions of values, without a clock, without I/O."""
