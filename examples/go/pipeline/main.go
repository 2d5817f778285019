// A pipeline through three languages: this Go function reads measurements, "NAME VALUE" a line, and asks the Python
// function "summarise" (python/summarise.py) about the values of each name, which has the C++ function "sort"
// (cpp/sort.cc) sort them.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	"spore/spore"
)

func fail(why any) {
	fmt.Fprintln(os.Stderr, "pipeline:", why)
	os.Exit(1)
}

func main() {
	values := map[string][]float64{}
	for number, line := range strings.Split(strings.TrimSpace(string(spore.Input())), "\n") {
		words := strings.Fields(line)
		if len(words) != 2 {
			fail(fmt.Sprintf("line %d is not NAME VALUE", number+1))
		}
		value, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			fail(fmt.Sprintf("line %d: %v", number+1, err))
		}
		values[words[0]] = append(values[words[0]], value)
	}
	var names []string
	var inputs [][]byte
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		input, err := json.Marshal(values[name])
		if err != nil {
			fail(err)
		}
		inputs = append(inputs, input)
	}
	outputs, err := spore.Map("summarise", inputs)
	if err != nil {
		fail(err)
	}
	for i, output := range outputs {
		var summary struct {
			Count                     int
			Smallest, Median, Largest float64
		}
		if err := json.Unmarshal(output, &summary); err != nil {
			fail(err)
		}
		spore.Output([]byte(fmt.Sprintf("%s: %d values from %g to %g, median %g\n", names[i], summary.Count,
			summary.Smallest, summary.Largest, summary.Median)))
	}
}
