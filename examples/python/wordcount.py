# Counts the words of its input (c/wordcount.c says what a word is).
import re
import sys
from collections import Counter

words = re.findall("[a-z]+", sys.stdin.buffer.read().decode("latin-1").lower())
counts = Counter(words)
print(f"{len(words)} words, {len(counts)} different")
for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]:
    print(count, word)
