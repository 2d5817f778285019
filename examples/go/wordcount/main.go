// Counts the words of a text on standard input (c/wordcount.c says what a word is).
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"sort"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	counts := map[string]int{}
	words := 0
	isSeparator := func(r rune) bool { return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') }
	for _, word := range bytes.FieldsFunc(text, isSeparator) {
		counts[string(bytes.ToLower(word))]++
		words++
	}
	sorted := make([]string, 0, len(counts))
	for word := range counts {
		sorted = append(sorted, word)
	}
	sort.Slice(sorted, func(i, j int) bool {
		if counts[sorted[i]] != counts[sorted[j]] {
			return counts[sorted[i]] > counts[sorted[j]]
		}
		return sorted[i] < sorted[j]
	})
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintf(out, "%d words, %d different\n", words, len(sorted))
	for _, word := range sorted[:min(10, len(sorted))] {
		fmt.Fprintln(out, counts[word], word)
	}
}
