"""Sizes, types, index formulas, scalar bodies, and the interned graph made of them."""
