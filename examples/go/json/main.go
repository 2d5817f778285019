// A JSON transform (cpp/json.cc says which).
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"sort"
	"strconv"
)

const countMax = 1e9

type summary struct {
	name           string
	orders, pieces uint64
	total          float64
	articles       map[string]uint64
}

// A number as people write amounts: rounded to cents, with at least one decimal.
type amount float64

func (a amount) MarshalJSON() ([]byte, error) {
	cents := math.Floor(float64(a)*100+0.5) / 100
	text := strconv.FormatFloat(cents, 'f', -1, 64)
	if cents == math.Floor(cents) {
		text += ".0"
	}
	return []byte(text), nil
}

type customer struct {
	Customer  string  `json:"customer"`
	Favourite *string `json:"favourite,omitempty"`
	Orders    uint64  `json:"orders"`
	Pieces    uint64  `json:"pieces"`
	Total     amount  `json:"total"`
}

func fail(why string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "json: "+why+"\n", arguments...)
	os.Exit(1)
}

// What is wrong with the order, or "" when it has been added.
func add(order any, customers map[string]*summary) string {
	fields, _ := order.(map[string]any)
	name, ok := fields["customer"].(string)
	if !ok {
		return "has no customer"
	}
	items, ok := fields["items"].([]any)
	if !ok {
		return "has no list of items"
	}
	s := customers[name]
	if s == nil {
		s = &summary{name: name, articles: map[string]uint64{}}
		customers[name] = s
	}
	s.orders++
	for _, entry := range items {
		item, _ := entry.(map[string]any)
		article, hasArticle := item["article"].(string)
		price, hasPrice := item["price"].(float64)
		count, hasCount := item["count"].(float64)
		if !hasArticle || !hasPrice || !hasCount || count < 0 || count > countMax || count != math.Floor(count) {
			return "has an item without article, price or count"
		}
		s.pieces += uint64(count)
		s.total += price * count
		s.articles[article] += uint64(count)
	}
	return ""
}

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail("%v", err)
	}
	var input any
	if json.Unmarshal(text, &input) != nil {
		fail("the input is not JSON")
	}
	orders, ok := input.([]any)
	if !ok {
		fail("the input is not a list of orders")
	}
	customers := map[string]*summary{}
	for index, order := range orders {
		if wrong := add(order, customers); wrong != "" {
			fail("order %d %s", index, wrong)
		}
	}

	sorted := make([]*summary, 0, len(customers))
	for _, s := range customers {
		sorted = append(sorted, s)
	}
	sort.Slice(sorted, func(i, j int) bool {
		if sorted[i].total != sorted[j].total {
			return sorted[i].total > sorted[j].total
		}
		return sorted[i].name < sorted[j].name
	})
	var result struct {
		Customers []customer `json:"customers"`
		Total     amount     `json:"total"`
	}
	result.Customers = []customer{}
	for _, s := range sorted {
		c := customer{Customer: s.name, Orders: s.orders, Pieces: s.pieces, Total: amount(s.total)}
		for article, count := range s.articles {
			article := article // of its own: its address is kept
			best := uint64(0)
			if c.Favourite != nil {
				best = s.articles[*c.Favourite]
			}
			if c.Favourite == nil || count > best || count == best && article < *c.Favourite {
				c.Favourite = &article
			}
		}
		result.Customers = append(result.Customers, c)
		result.Total += amount(s.total)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(result); err != nil {
		fail("%v", err)
	}
	os.Stdout.Write(out.Bytes())
}
