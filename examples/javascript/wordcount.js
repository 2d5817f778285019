// Counts the words of its input (c/wordcount.c says what a word is).
const counts = new Map();
const words = Spore.input().toLowerCase().match(/[a-z]+/g) ?? [];
for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
const sorted = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
print(`${words.length} words, ${sorted.length} different`);
for (const [word, count] of sorted.slice(0, 10)) print(`${count} ${word}`);
