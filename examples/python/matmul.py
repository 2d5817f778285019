# Multiplies two square matrices by divide and conquer: a product of matrices of 2n rows is eight products of n rows and
# four sums, and each product is a call of the function "matmul", which is this one, until they are small.
#
#   {"size": 32, "leaf": 8}       C = A B, of the values "matrix/a" and "matrix/b" into "matrix/c": numbers of 64 bits (f64)
#                                 in rows; the size is the leaf's times a power of two
#
# What a call works on, parts of A and B and the value its product goes to, is in its input; the numbers themselves go by
# state. docs/languages.md says how functions come by the module `spore`.
import json
from array import array
from itertools import product

import spore


def read_block(key, size, row, column, rows):
    """Part of a matrix of `size` rows, as a list of rows."""
    with spore.state.open(key, pull=True) as value:
        if value.size() != 8 * size * size:
            raise ValueError(f"state {key!r} is no matrix of {size} rows")
        return [array("d", value.read(8 * ((row + i) * size + column), 8 * rows)) for i in range(rows)]


def multiply(a, b):
    columns = list(zip(*b))
    return [array("d", (sum(x * y for x, y in zip(row, column)) for column in columns)) for row in a]


def add(a, b):
    return [array("d", map(float.__add__, row, other)) for row, other in zip(a, b)]


def divide(task, rows):
    """The product, from those of the quarters."""
    half = rows // 2
    tasks = []
    for i, j, k in product((0, 1), repeat=3):  # part (i, j) of the product is the sum over k
        tasks.append(task | {
            "rows": half,
            "a": [task["a"][0] + i * half, task["a"][1] + k * half],
            "b": [task["b"][0] + k * half, task["b"][1] + j * half],
            "to": f"{task['to']}.{i}{j}{k}",
        })
    spore.map("matmul", [json.dumps(one) for one in tasks])
    parts = [read_block(one["to"], half, 0, 0, half) for one in tasks]
    for one in tasks:
        spore.state.delete(one["to"])
    out = []
    for i in (0, 1):
        left, right = (add(*parts[4 * i + 2 * j : 4 * i + 2 * j + 2]) for j in (0, 1))
        out += [one + other for one, other in zip(left, right)]
    return out


task = {"a": [0, 0], "b": [0, 0], "to": "matrix/c"} | json.loads(spore.input())
rows = task.get("rows", task["size"])
if rows <= task["leaf"]:
    result = multiply(read_block("matrix/a", task["size"], *task["a"], rows),
                      read_block("matrix/b", task["size"], *task["b"], rows))
else:
    result = divide(task, rows)
spore.state.put(task["to"], b"".join(map(bytes, result)))
