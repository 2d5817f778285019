# Counts the primes below a number, many parts of it at once: each part is a call of the function "primes", which is this
# one. A part is asked for by two numbers. docs/languages.md says how functions come by the module `spore`.
import sys

import spore

PARTS, NUMBER_MAX = 8, 100_000_000


def is_prime(n):
    return n > 1 and all(n % i for i in range(2, int(n**0.5) + 1))


numbers = [int(word) for word in spore.input().split()]
if len(numbers) == 2:
    spore.output(str(sum(map(is_prime, range(*numbers)))))
    sys.exit()
if len(numbers) != 1 or not 0 <= numbers[0] <= NUMBER_MAX:
    sys.exit("primes: the input is no number up to 100000000")
bounds = [i * numbers[0] // PARTS for i in range(PARTS + 1)]
counts = spore.map("primes", [f"{begin} {end}" for begin, end in zip(bounds, bounds[1:])])
spore.output(f"{sum(map(int, counts))}\n")
