// Counts the primes below a number, many parts of it at once: each part is a call of the function "primes", which is this
// one. A part is asked for by two numbers.
package main

import (
	"fmt"
	"os"

	"spore/spore"
)

const parts, numberMax = 8, 100_000_000

func isPrime(n int) bool {
	for i := 2; i*i <= n; i++ {
		if n%i == 0 {
			return false
		}
	}
	return n > 1
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, "primes:", why)
	os.Exit(1)
}

func main() {
	var begin, end int
	count, _ := fmt.Sscan(string(spore.Input()), &begin, &end)
	if count == 2 {
		primes := 0
		for n := begin; n < end; n++ {
			if isPrime(n) {
				primes++
			}
		}
		spore.Output([]byte(fmt.Sprint(primes)))
		return
	}
	below := begin
	if count != 1 || below < 0 || below > numberMax {
		fail("the input is no number up to 100000000")
	}
	inputs := make([][]byte, parts)
	for i := range inputs {
		inputs[i] = []byte(fmt.Sprint(i*below/parts, (i+1)*below/parts))
	}
	outputs, err := spore.Map("primes", inputs)
	if err != nil {
		fail(err)
	}
	sum := 0
	for _, output := range outputs {
		var primes int
		if _, err := fmt.Sscan(string(output), &primes); err != nil {
			fail(err)
		}
		sum += primes
	}
	spore.Output([]byte(fmt.Sprintln(sum)))
}
