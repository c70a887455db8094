"""LLVM as text: the writer, targets, vector maths, emission."""
