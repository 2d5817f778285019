// Counts the words of its input (c/wordcount.c says what a word is).
#include <algorithm>
#include <spore.hpp>
#include <string>
#include <unordered_map>
#include <vector>

SPORE_FUNCTION {
  std::unordered_map<std::string, unsigned long> counts;
  unsigned long words = 0;
  std::string word;
  const auto end_of_word = [&] {
    if (word.empty()) return;
    ++counts[word];
    ++words;
    word.clear();
  };
  for (const char c : spore::input()) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 'a' - 'A') : c;
    if (lower >= 'a' && lower <= 'z') {
      word += lower;
    } else {
      end_of_word();
    }
  }
  end_of_word();

  std::vector<std::pair<std::string, unsigned long>> sorted(counts.begin(), counts.end());
  std::ranges::sort(sorted, [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  spore::write(std::to_string(words) + " words, " + std::to_string(sorted.size()) + " different\n");
  for (const auto& [text, count] : std::span(sorted).first(std::min<size_t>(10, sorted.size()))) {
    spore::write(std::to_string(count) + " " + text + "\n");
  }
  return 0;
}
