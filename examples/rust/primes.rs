// Counts the primes below a number, many parts of it at once: each part is a call of this program itself, entered at
// another of its functions.
#[path = "../../sdk/rust/spore.rs"]
mod spore;

const PARTS: u64 = 8;
const NUMBER_MAX: u64 = 100_000_000;

fn fail(why: &str) -> ! {
    eprintln!("primes: {}", why);
    std::process::exit(1)
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..).take_while(|i| i * i <= n).all(|i| n % i != 0)
}

fn numbers(text: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace().map(|word| word.parse().unwrap_or_else(|_| fail("the input is no number"))).collect()
}

/// The input is "BEGIN END", the output how many there are.
extern "C" fn count_part() -> i32 {
    let range = numbers(&spore::input());
    let count = (range[0]..range[1]).filter(|&n| is_prime(n)).count();
    spore::output(count.to_string().as_bytes());
    0
}

fn main() {
    let below = match numbers(&spore::input())[..] {
        [below] if below <= NUMBER_MAX => below,
        _ => fail("the input is no number up to 100000000"),
    };
    let parts: Vec<spore::Call> = (0..PARTS)
        .map(|i| format!("{} {}", i * below / PARTS, (i + 1) * below / PARTS))
        .map(|range| spore::Call::of_this(count_part, range.as_bytes()).unwrap_or_else(|error| fail(&error.to_string())))
        .collect();
    let sum: u64 = parts
        .iter()
        .map(|part| part.result().unwrap_or_else(|message| fail(&message)))
        .map(|count| numbers(&count)[0])
        .sum();
    println!("{}", sum);
}
