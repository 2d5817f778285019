// Counts the words of a text on standard input (c/wordcount.c says what a word is).
use std::collections::HashMap;
use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    text.make_ascii_lowercase();

    let mut counts: HashMap<&[u8], u64> = HashMap::new();
    let mut words = 0u64;
    for word in text.split(|c| !c.is_ascii_lowercase()).filter(|word| !word.is_empty()) {
        *counts.entry(word).or_insert(0) += 1;
        words += 1;
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));

    let mut out = io::stdout().lock();
    writeln!(out, "{} words, {} different", words, sorted.len())?;
    for (word, count) in sorted.iter().take(10) {
        writeln!(out, "{} {}", count, String::from_utf8_lossy(word))?;
    }
    Ok(())
}
