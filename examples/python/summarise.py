# The middle of the pipeline of examples/go/pipeline: has the C++ function "sort" sort some numbers, a JSON list, and says
# what there is to say of them. docs/languages.md says how functions come by the module `spore`.
import json

import spore

numbers = json.loads(spore.input())
ordered = [float(line) for line in spore.call("sort", "\n".join(map(repr, numbers))).result().split()]
middle = len(ordered) // 2
spore.output(json.dumps({
    "count": len(ordered),
    "smallest": ordered[0],
    "median": ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2,
    "largest": ordered[-1],
}))
