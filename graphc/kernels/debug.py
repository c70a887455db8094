"""``debug=True``: after every kernel, a check that what it wrote is finite, naming the node, its formula and source
line.
"""

from __future__ import annotations

import math

import numpy as np

from graphc.graph.graph import ConstValue, Graph, Node
from graphc.graph.scalar import const_value
from graphc.kernels.form import FiniteCheck, IndexCheck, Kernel, Nest, Program
from graphc.kernels.told import told
from graphc.structs import replace


def with_finite_checks(program: Program, graph: Graph, nan_only: bool) -> Program:
    """The program with a finite check behind every nest for each float buffer that it stores.

    graph: that of which the program was made (``lower.prepared``). nan_only: let infinities pass.
    """
    number = sum(1 for k in program.kernels if isinstance(k, IndexCheck))
    kernels: list[Kernel] = []
    for kernel in program.kernels:
        kernels.append(kernel)
        if not isinstance(kernel, Nest):
            continue
        for buffer in kernel.writes():
            if program.buffers[buffer].dtype.kind != "f":
                continue
            message, source = _described(program, kernel, buffer, graph)
            kernels.append(FiniteCheck(f"finite{number}", buffer, number, message, source, kernel.nodes, nan_only))
            number += 1
    return replace(program, kernels=tuple(kernels))


def states_infinity(node: Node) -> bool:
    """Whether a node is an infinite constant, or one stands in its formula, as where a mask puts minus infinity."""
    if node.dtype.kind != "f":
        return False
    if isinstance(node.attr, ConstValue):
        return bool(np.isinf(node.attr.array()).any())
    instrs = node.formula.body.instrs if node.kind == "formula" else ()
    return any(i.op == "const" and i.dtype.kind == "f" and math.isinf(const_value(i)) for i in instrs)


def _described(program: Program, nest: Nest, buffer: int, graph: Graph) -> tuple[str, str]:
    operands = ", ".join(program.buffers[k].name.split(".")[0] for k in nest.reads()) or "nothing"
    what = told(graph, program, nest)
    ops = ", ".join(what.operations) or "a derived value"
    name = program.buffers[buffer].name.split(".")[0]
    return f"debug: {{value}} at position {{position}} of {name} ({ops}), computed from {operands}", what.line
