"""Graphs as mathematics: nodes become a small tree of notation, which is printed as text or as LaTeX."""
