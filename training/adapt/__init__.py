"""Adapt a student to one camera without labels."""
