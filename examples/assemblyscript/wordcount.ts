// Counts the words of its input (c/wordcount.c says what a word is).
import { input, print } from "../../sdk/assemblyscript/spore";

class Word {
  constructor(public text: string, public count: u32) {}
}

export function spore_call(): i32 {
  const text = input();
  const counts = new Map<string, Word>();
  let words: u32 = 0;
  let begin = 0;
  for (let i = 0; i <= text.length; i++) {
    let c: u8 = i < text.length ? text[i] : 0;
    if (c >= 0x41 && c <= 0x5a) {
      c += 0x20;
      text[i] = c;
    }
    if (c >= 0x61 && c <= 0x7a) continue;
    if (i > begin) {
      const word = String.UTF8.decodeUnsafe(text.dataStart + begin, i - begin);
      if (counts.has(word)) {
        counts.get(word).count++;
      } else {
        counts.set(word, new Word(word, 1));
      }
      words++;
    }
    begin = i + 1;
  }
  const sorted = counts.values();
  sorted.sort((a, b) => {
    if (a.count != b.count) return a.count > b.count ? -1 : 1;
    return a.text < b.text ? -1 : a.text > b.text ? 1 : 0;
  });
  print(words.toString() + " words, " + sorted.length.toString() + " different\n");
  for (let i = 0; i < min(10, sorted.length); i++) print(sorted[i].count.toString() + " " + sorted[i].text + "\n");
  return 0;
}
