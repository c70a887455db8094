"""Rewriting: rule tables, their engine, and the solving of formulas."""
