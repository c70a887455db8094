"""The chain rule, Graph to Graph. It knows formulas, combiners' laws and special records, and names no operation."""
