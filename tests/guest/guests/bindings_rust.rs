// The Rust binding: every call of it, in the three steps of bindings_test.cc.
#[path = "../../../sdk/rust/spore.rs"]
mod spore;

use spore::{Element, Error, Merge, Mode, Scope, State};

fn check(what: &str, holds: bool) {
    if !holds {
        eprintln!("{} does not hold", what);
        std::process::exit(100);
    }
}

macro_rules! check {
    ($holds:expr) => {
        check(concat!("line ", line!(), ": ", stringify!($holds)), $holds)
    };
}

fn first() {
    let value = State::new("rust/value");
    check!(value.map_all().unwrap_err() == Error::NO_ENTRY);
    check!(value.map(0).unwrap_err() == Error::INVALID);
    let mapped = value.map(10_000).unwrap();
    check!(mapped.len() == 10_000 && value.size() == Ok(10_000));
    check!(value.map(10_001).unwrap_err() == Error::INVALID);
    mapped.write(0, b"through memory");
    value.write(9_000, b"by the host").unwrap();
    let mut text = [0; 14];
    check!(value.read(0, &mut text) == Ok(14) && &text == b"through memory");
    mapped.read(9_000, &mut text[..11]);
    check!(&text[..11] == b"by the host");
    check!(value.read(9_995, &mut text) == Ok(5) && value.read(10_000, &mut text) == Ok(0));
    check!(value.write(9_999, b"ab") == Err(Error::FILE_TOO_BIG));
    check!(value.map_read_only().unwrap().as_ptr() != mapped.as_ptr());
    check!(value.version().unwrap().number == 0);
    value.push_range(0, 1).unwrap();
    let version = value.version().unwrap();
    check!(version.number == 1 && version.epoch != 0);
    unsafe { mapped.slice_mut::<u16>()[2_500] = 0x6261 }; // the second page
    value.push_if(version).unwrap();
    mapped.write(1, b"H");
    check!(value.push_if(version) == Err(Error::AGAIN));
    check!(value.version().unwrap().number == 2);

    let log = State::new("rust/log");
    check!(log.append(b"one, ") == Ok(0) && log.append(b"two, ") == Ok(5));
    let sum = State::new("rust/sum");
    let elements = sum.map(8).unwrap();
    sum.merge(Merge::Sum, Element::I64).unwrap();
    elements.write(0, &5i64.to_le_bytes());
    let sized = State::new("rust/sized");
    sized.map(10).unwrap();
    sized.resize(20).unwrap();
    check!(sized.size() == Ok(20));
    sized.unmap().unwrap();
    check!(sized.unmap() == Err(Error::NO_ENTRY));
    let gone = State::new("rust/gone");
    gone.map(10).unwrap();
    gone.push().unwrap();
    gone.delete().unwrap();
    check!(gone.pull() == Err(Error::NO_ENTRY));
    check!(spore::keys("rust/") == Ok(["log", "sized", "sum", "value"].map(|name| format!("rust/{}", name)).to_vec()));
    for scope in [Scope::Host, Scope::Global] {
        let lock = value.lock(Mode::Write, scope, 1000).unwrap();
        check!(!lock.poisoned);
        check!(value.lock(Mode::Read, scope, 1000).unwrap_err() == Error::DEADLOCK);
        drop(lock);
        let readers = [value.lock(Mode::Read, scope, 1000), value.lock(Mode::Read, scope, 1000)];
        check!(readers.iter().all(|lock| lock.is_ok()));
    }
    check!(State::new("").size() == Err(Error::INVALID));
}

fn second() {
    let value = State::new("rust/value");
    let mut text = [0; 14];
    value.pull_range(0, 14).unwrap();
    check!(value.read(0, &mut text) == Ok(14) && &text == b"through memory");
    let mapped = value.map_all().unwrap();
    check!(unsafe { &mapped.slice::<u8>()[5_000..5_002] } == b"ab");
    value.read(9_000, &mut text).unwrap();
    check!(text == *b"by the host\0\0\0");
    mapped.write(4_500, b"from the other host");
    value.push().unwrap();
    let sum = State::new("rust/sum");
    let elements = sum.map(8).unwrap();
    sum.merge(Merge::Sum, Element::I64).unwrap();
    elements.write(0, &7i64.to_le_bytes());
    sum.push().unwrap();
    check!(State::new("rust/log").append(b"three") == Ok(10));
    check!(State::new("rust/sized").size() == Err(Error::NO_ENTRY));
}

fn third() {
    let value = State::new("rust/value");
    let mut text = [0; 19];
    value.read(4_500, &mut text).unwrap();
    check!(text == [0; 19]);
    value.pull().unwrap();
    value.read(4_500, &mut text).unwrap();
    check!(&text == b"from the other host");
    value.read(0, &mut text[..7]).unwrap();
    check!(&text[..7] == b"tHrough"); // not pushed yet, and kept
    let sum = State::new("rust/sum");
    sum.push().unwrap();
    sum.pull().unwrap();
    let mut bytes = [0; 8];
    sum.map_read_only().unwrap().read(0, &mut bytes);
    check!(i64::from_le_bytes(bytes) == 12);
    let log = State::new("rust/log");
    log.pull().unwrap();
    check!(log.read(0, &mut text) == Ok(15) && &text[..15] == b"one, two, three");
}

extern "C" fn own_entry() -> i32 {
    0
}

fn calls() {
    use spore::{await_any, Call, FOREVER};
    let echo = Call::new("echo", b"hello").unwrap();
    check!(echo.wait(FOREVER) == Ok(0) && echo.output() == Ok(b"hello".to_vec()) && echo.message().is_empty());
    check!(echo.result() == Ok(b"hello".to_vec()));
    let fails = Call::new("fail", b"").unwrap();
    check!(fails.wait(FOREVER) == Ok(3) && fails.output().unwrap().len() == 7);
    check!(fails.result() == Err("it exited with code 3".to_string()));
    check!(Call::new("trap", b"").unwrap().result() == Err("TRAPPED: it trapped: unreachable".to_string()));
    check!(Call::new("nobody", b"").unwrap_err() == Error::NO_ENTRY);
    check!(Call::new("full", b"").unwrap_err() == Error::AGAIN);
    check!(Call::new("..", b"").unwrap_err() == Error::INVALID);
    check!(Call::new("echo", &[0; 101]).unwrap_err() == Error::TOO_BIG);
    let never = Call::new("never", b"").unwrap();
    check!(never.wait(5) == Err(Error::AGAIN) && never.output() == Err(Error::AGAIN));
    let both = [never, echo];
    check!(await_any(&both, FOREVER) == Ok(1) && await_any(&both[..1], 5) == Err(Error::AGAIN));
    both[0].cancel();
    check!(both[0].wait(FOREVER) == Err(Error::CANCELED));
    check!(Call::new("later", b"x").unwrap().result() == Ok(b"x".to_vec()));
    check!(Call::of_this(own_entry, b"").unwrap().result().unwrap().len() == 4);
    check!(spore::map("echo", &["a", "b"]) == [Ok(b"a".to_vec()), Ok(b"b".to_vec())]);
    check!(spore::map("full", &["a"])[0].is_err());
    check!(spore::call_detached("echo", b"").unwrap() == "d".repeat(32));
}

fn main() {
    let mut tail = [0; 4];
    let got = spore::input_read(2, &mut tail);
    check!(&tail[..got] == &spore::input()[2..]);
    match std::env::args().nth(1).as_deref() {
        Some("first") => first(),
        Some("second") => second(),
        Some("third") => third(),
        Some("calls") => calls(),
        _ => check!(false),
    }
    spore::output(&spore::input());
}
