// Counts the words of many shared files by map and reduce. The function "mapreduce" is mounted a folder of the tenant's
// files at /corpus; its calls of itself say in their first line what they are:
//
//   (no input)    one mapper for each file, then a reducer for each part of the words; prints the most frequent ten
//   map NAME      counts the words of a file: "WORD COUNT" lines, sorted into parts by their words, a line "--" between
//   reduce        the lines of all mappers for one part: adds them up
//
// Words are letters, digits and what lies beyond ASCII, in lower case.
#[path = "../../sdk/rust/spore.rs"]
mod spore;

use std::collections::HashMap;

const PARTS: usize = 4;
const TOP: usize = 10;

fn fail(why: impl std::fmt::Display) -> ! {
    eprintln!("mapreduce: {}", why);
    std::process::exit(1)
}

// FNV-1a: the same in every call.
fn part_of(word: &str) -> usize {
    let hash = word.bytes().fold(0xcbf29ce484222325u64, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x100000001b3));
    (hash % PARTS as u64) as usize
}

fn lines_of(counts: HashMap<String, u64>, part: usize) -> String {
    let mut words: Vec<_> = counts.into_iter().filter(|(word, _)| part == PARTS || part_of(word) == part).collect();
    words.sort();
    words.iter().map(|(word, count)| format!("{} {}\n", word, count)).collect()
}

fn map(name: &str) {
    let text = std::fs::read(format!("/corpus/{}", name)).unwrap_or_else(|error| fail(format!("{}: {}", name, error)));
    let text = String::from_utf8_lossy(&text).to_lowercase();
    let mut counts = HashMap::new();
    for word in text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_string()).or_insert(0) += 1;
    }
    let parts: Vec<String> = (0..PARTS).map(|part| lines_of(counts.clone(), part)).collect();
    spore::output(parts.join("--\n").as_bytes());
}

fn reduce<'a>(lines: impl Iterator<Item = &'a str>) {
    let mut counts = HashMap::new();
    for line in lines {
        let (word, count) = line.rsplit_once(' ').unwrap_or_else(|| fail("a line has no count"));
        *counts.entry(word.to_string()).or_insert(0) += count.parse::<u64>().unwrap_or_else(|error| fail(error));
    }
    spore::output(lines_of(counts, PARTS).as_bytes());
}

// What calls of this function gave, as text.
fn run(inputs: Vec<String>) -> Vec<String> {
    let outputs = spore::map("mapreduce", &inputs);
    outputs.into_iter().map(|output| String::from_utf8(output.unwrap_or_else(|why| fail(why))).unwrap()).collect()
}

fn main() {
    let input = String::from_utf8(spore::input()).unwrap_or_else(|error| fail(error));
    let mut lines = input.lines();
    match lines.next() {
        Some("reduce") => return reduce(lines),
        Some(line) => match line.strip_prefix("map ") {
            Some(name) => return map(name),
            None => fail("the input says neither map nor reduce"),
        },
        None => {}
    }
    let files = std::fs::read_dir("/corpus").unwrap_or_else(|error| fail(format!("/corpus: {}", error)));
    let mut names: Vec<String> =
        files.map(|file| file.unwrap_or_else(|error| fail(error)).file_name().into_string().unwrap()).collect();
    names.sort();
    let mut parts = vec![String::from("reduce\n"); PARTS];
    for output in run(names.iter().map(|name| format!("map {}", name)).collect()) {
        for (part, lines) in output.split("--\n").enumerate() {
            parts[part] += lines;
        }
    }
    let mut counts: Vec<(u64, String)> = Vec::new();
    for output in run(parts) {
        for line in output.lines() {
            let (word, count) = line.rsplit_once(' ').unwrap();
            counts.push((count.parse().unwrap(), word.to_string()));
        }
    }
    let words: u64 = counts.iter().map(|(count, _)| count).sum();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    println!("{} words, {} different, in {} files", words, counts.len(), names.len());
    for (count, word) in counts.iter().take(TOP) {
        println!("{} {}", count, word);
    }
}
